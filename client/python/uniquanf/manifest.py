"""manifest.json (FORMAT.md, "manifest.json"), checked."""

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

from .errors import ArtifactError
from .strict_json import parse_object

_FIELDS = {"format", "version", "software_version", "environment", "spec", "model", "origin", "modules",
           "layers", "evaluation", "anybcq_omitted", "files", "attachments"}
_OPTIONAL = {"origin", "evaluation"}
_MAX_WIDTH = 1 << 40


def _bad(message: str) -> ArtifactError:
    return ArtifactError("INVALID_MANIFEST", f"manifest.json: {message}")


@dataclass(frozen=True)
class FileEntry:
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ModuleEntry:
    """A linear layer of the source; bits and group_size are 0 where it is in full precision."""

    name: str
    num_outputs: int
    num_inputs: int
    bits: int
    group_size: int


@dataclass(frozen=True)
class Manifest:
    raw: Dict[str, Any]
    modules: Tuple[ModuleEntry, ...]
    files: Tuple[FileEntry, ...]


def _list(raw: Dict[str, Any], name: str) -> List[Any]:
    value = raw[name]
    if not isinstance(value, list):
        raise _bad(f"{name} is no list")
    return value


def _number(entry: Dict[str, Any], name: str, where: str, low: int, high: int) -> int:
    value = entry.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _bad(f"{where}.{name} is {value!r}, not a whole number from {low} to {high}")
    return value


def _path(value: object, where: str) -> str:
    if (not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]{1,1000}", value)
            or any(part in ("", ".", "..") for part in value.split("/"))):
        raise _bad(f"{where} is {value!r}, no relative path")
    return value


def _module(entry: object, where: str) -> ModuleEntry:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _bad(f"{where} is no object with a name")
    outputs = _number(entry, "num_outputs", where, 1, _MAX_WIDTH)
    inputs = _number(entry, "num_inputs", where, 1, _MAX_WIDTH)
    status = entry.get("status")
    if status == "full_precision":
        return ModuleEntry(entry["name"], outputs, inputs, 0, 0)
    if status != "quantized":
        raise _bad(f"{where}.status is {status!r}")
    bits = _number(entry, "bits", where, 2, 8)
    group_size = _number(entry, "group_size", where, 1, _MAX_WIDTH)
    if inputs % group_size:
        raise _bad(f"{where}: groups of {group_size} do not divide {inputs} inputs")
    return ModuleEntry(entry["name"], outputs, inputs, bits, group_size)


def _file(entry: object, where: str) -> FileEntry:
    if not isinstance(entry, dict):
        raise _bad(f"{where} is no object")
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise _bad(f"{where}.sha256 is {digest!r}")
    return FileEntry(_path(entry.get("path"), f"{where}.path"),
                     _number(entry, "size_bytes", where, 0, 1 << 62), digest)


def parse_manifest(data: bytes) -> Manifest:
    raw = parse_object(data, "manifest.json", "INVALID_MANIFEST")
    for name in sorted(set(raw) - _FIELDS):
        raise _bad(f'unknown field "{name}"')
    for name in sorted(_FIELDS - _OPTIONAL - set(raw)):
        raise _bad(f'field "{name}" is missing')
    if raw["format"] != "uniquanf-artifact" or raw["version"] not in (1, 2) or raw["version"] is True:
        raise _bad(f"format {raw['format']!r} version {raw['version']!r}; "
                   "this reader knows uniquanf-artifact versions 1 and 2")
    modules = tuple(_module(m, f"modules[{i}]") for i, m in enumerate(_list(raw, "modules")))
    files = tuple(_file(f, f"files[{i}]") for i, f in enumerate(_list(raw, "files")))
    for what, names in (("module", [m.name for m in modules]), ("file", [f.path for f in files])):
        seen = set()
        for name in names:
            if name in seen:
                raise _bad(f'{what} "{name}" appears twice')
            seen.add(name)
    for i, attachment in enumerate(_list(raw, "attachments")):
        _path(attachment, f"attachments[{i}]")
    return Manifest(raw, modules, files)
