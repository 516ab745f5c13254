"""Renders the chart with the helm binary that the environment variable HELM names (scripts/chart_check.sh sets it).

A rendering is a list of objects (dicts). Duplicate keys are errors, as for the API server. Rendering needs no cluster.
"""
import functools
import os
import pathlib
import subprocess

import yaml

TESTS = pathlib.Path(__file__).resolve().parent
CHART = pathlib.Path(os.environ.get("CHART", TESTS.parent / "helm" / "uniquanf"))
HELM = os.environ.get("HELM", "helm")


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""


def _mapping(loader, node, deep=False):
    keys = [loader.construct_object(k, deep=deep) for k, _ in node.value]
    if len(set(keys)) < len(keys):
        raise yaml.YAMLError(f"duplicate keys at {node.start_mark}")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


class Refused(Exception):
    """helm refused the values; the text is its message."""


@functools.lru_cache(maxsize=None)
def render_text(*arguments, release="u", namespace="q"):
    """The rendering as text; Refused where helm ends with an error."""
    command = [HELM, "template", release, str(CHART), "--namespace", namespace, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def render(*arguments, **options):
    """The rendering as objects."""
    return [d for d in yaml.load_all(render_text(*arguments, **options), Loader) if d]


def sets(*values):
    """["a=1"] as ["--set", "a=1"]."""
    return [word for value in values for word in ("--set", value)]


def find(objects, kind, name=None):
    """The only object of a kind (and name)."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''} of {[(o['kind'], o['metadata']['name']) for o in objects]}"
    return found[0]


def pod_template(document):
    """The pod template of a workload, or None."""
    spec = document.get("spec") or {}
    kind = document["kind"]
    if kind == "Pod":
        return {"metadata": document["metadata"], "spec": spec}
    if kind in ("Deployment", "StatefulSet", "Job"):
        return spec["template"]
    if kind == "ScaledJob":
        return spec["jobTargetRef"]["template"]
    return None
