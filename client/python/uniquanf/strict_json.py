"""JSON from untrusted bytes: no repeated keys, no NaN, bounded depth."""

import json
from typing import Any, Dict, List, Tuple

from .errors import ArtifactError

_MAX_DEPTH = 64


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    result: Dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f'member "{key}" appears twice')
        result[key] = value
    return result


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _depth(text: str) -> int:
    deepest = level = 0
    in_string = escaped = False
    for c in text:
        if in_string:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                in_string = False
        elif c == '"':
            in_string = True
        elif c in "[{":
            level += 1
            deepest = max(deepest, level)
        elif c in "]}":
            level -= 1
    return deepest


def parse_object(data: bytes, what: str, reason: str) -> Dict[str, Any]:
    """The JSON object in `data`; `what` names it in messages."""
    try:
        text = data.decode("utf-8")
        if _depth(text) > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH}")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(reason, f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(reason, f"{what} is no JSON object")
    return value
