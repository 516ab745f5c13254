"""Every metric that alerts, dashboard and chart name must exist: in the sources' registries, or, with --scrape FILE, in what
server and worker really export (FILE holds their /metrics)."""
import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = re.compile(r"\b(?:uniquanf|process)_[a-z_]+\b")
SUFFIX = re.compile(r"_(bucket|sum|count)$")
# Not in the scrape of a machine that lacks what they are of: GPUs, TLS files, a policy, an audit log.
OPTIONAL = re.compile(r"^uniquanf_(worker_gpu|tls|policy|token|audit|auth)_")


def names_in(text):
    return {n for n in NAME.findall(text) if not n.endswith("_")}


def used():
    """Metric names by the file that uses them."""
    files = [ROOT / "deploy/prometheus/alerts.yaml", ROOT / "deploy/grafana/uniquanf.json", ROOT / "deploy/RUNBOOK.md"]
    files += (ROOT / "deploy/helm/uniquanf/templates").glob("*")
    return {f: names_in(f.read_text()) for f in files if f.is_file()}


def exported(scrape):
    found = set()
    for folder in ("server", "worker", "common"):
        for path in (ROOT / folder).rglob("*.cc"):
            found |= set(re.findall(r'"((?:uniquanf|process)_[a-z_]+)"', path.read_text()))
    if scrape:
        optional = {name for name in found if OPTIONAL.match(name)}
        return optional | set(re.findall(r"^# TYPE (\S+)", pathlib.Path(scrape).read_text(), re.M))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrape")
    known = exported(parser.parse_args().scrape)
    bad = 0
    for path, names in used().items():
        for name in sorted(names):
            if name not in known and SUFFIX.sub("", name) not in known:
                bad += 1
                print(f"{path.relative_to(ROOT)}: no registry has {name}")
    print(f"{len(set().union(*used().values()))} metric names are used, {bad} uses of unknown ones")
    return 1 if bad or not known else 0


sys.exit(main())
