"""Writes the table of values into the chart's README.md, from the comments "# -- ..." in values.yaml; with --check only says
whether it is up to date. Every value needs such a comment, its own or that of the map it is in."""
import pathlib
import re
import sys

CHART = pathlib.Path(__file__).resolve().parents[1] / "helm" / "uniquanf"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


def rows(text):
    """(name, default, description) of every described value."""
    path, comment = [], None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = stripped[5:]
        elif stripped.startswith("#"):
            if comment is not None:
                comment += " " + stripped.lstrip("# ")
        else:
            match = re.match(r"^( *)([A-Za-z0-9]+): *(.*)$", line)
            if match:
                depth = len(match.group(1)) // 2
                path = path[:depth] + [match.group(2)]
                if comment is not None:
                    yield ".".join(path), match.group(3) or "see values.yaml", comment
            comment = None


def table(text):
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for name, default, description in rows(text):
        default = default.replace("|", "\\|")
        default = default if default == "see values.yaml" else f"`{default}`"
        lines.append(f"| `{name}` | {default} | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main():
    readme = CHART / "README.md"
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    wanted = head + BEGIN + table((CHART / "values.yaml").read_text()) + END + tail
    if "--check" in sys.argv:
        if wanted != text:
            print(f"{readme}: the table of values is not that of values.yaml")
        return int(wanted != text)
    readme.write_text(wanted)
    return 0


sys.exit(main())
