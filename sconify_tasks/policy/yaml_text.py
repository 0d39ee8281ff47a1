"""Values become YAML text that YAML 1.1 and 1.2 readers take alike: blocks, flat lists in one line, no folding, no tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sconify_tasks.errors import UsageError
from sconify_tasks.yaml_nodes import Node

_SAFE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
# A long hex string is plain unless YAML could take it for a number (`12e34`, `0b01`): a letter other than e, not as a prefix.
_SAFE_HEX = re.compile(r"(?=.{32,128}\Z)[0-9a-f]{2}[0-9a-f]*[a-df][0-9a-f]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
_FLOW = re.compile(r"[,\[\]{}]")
_LONGEST_SIMPLE_KEY = 1000
_ASTRAL = 0xFFFF


class Plain(str):
    """Text to be written as it is: it was plain in the file that it came from."""

    __slots__ = ()


class Quoted(str):
    """Text to be written in double quotes always."""

    __slots__ = ()


def dump(value: Mapping[str, Any]) -> str:
    """Write a mapping of str, int, bool, None, lists and mappings. Raise UsageError for text that is not Unicode."""
    return "\n".join(_mapping(value, "") or ["{}"]) + "\n"


def values(node: Node) -> Any:
    """Make of a node what `dump` writes back with the same meaning."""
    if isinstance(node.value, tuple):
        return [values(item) for item in node.value]
    if isinstance(node.value, Mapping):
        return {key: values(item) for key, item in node.value.items()}
    if node.plain and "\n" not in node.value:
        return None if node.is_null else Plain(node.value)
    return node.value


def quote(text: str) -> str:
    """Write a double-quoted scalar."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 - the surrogates
        raise UsageError("a value is not UTF-8 text, which a session can't hold", hint="set it with --env, or change the image")
    return f"\\U{code:08x}" if code > _ASTRAL else f"\\u{code:04x}"


def _scalar(value: object, *, flow: bool = False) -> str:
    if value is None:
        return "~"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if isinstance(value, Plain) and not (flow and _FLOW.search(value)):
        return value
    safe = (_SAFE.fullmatch(value) and value.lower() not in _WORDS) or _SAFE_HEX.fullmatch(value)
    return str(value) if safe and not isinstance(value, Quoted) else quote(value)


def _flat(value: Sequence[Any]) -> bool:
    return not any(isinstance(item, (list, tuple, Mapping)) for item in value)


def _mapping(value: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, item in value.items():
        name = _scalar(Quoted(key) if key == "" else key)
        head = f"{indent}{name}:" if len(name) < _LONGEST_SIMPLE_KEY else f"{indent}? {name}\n{indent}:"
        lines += _under(head, item, indent)
    return lines


def _under(head: str, item: Any, indent: str) -> list[str]:
    if isinstance(item, Mapping):
        return [head, *_mapping(item, indent + "  ")] if item else [f"{head} {{}}"]
    if isinstance(item, (list, tuple)):
        if _flat(item):
            return [f"{head} [{', '.join(_scalar(part, flow=True) for part in item)}]"]
        return [head, *(line for part in item for line in _item(part, indent + "  "))]
    return [f"{head} {_scalar(item)}"]


def _item(item: Any, indent: str) -> list[str]:
    if isinstance(item, Mapping) and item:
        first, *rest = _mapping(item, indent + "  ")
        return [f"{indent}- {first.removeprefix(indent + '  ')}", *rest]
    return _under(f"{indent}-", item, indent)
