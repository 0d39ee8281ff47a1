"""What differs between two values that a step took: trees path by path, JSON key by key. Values of secrets are never said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.tree import MAGIC, decode_tree
from sconify_tasks.image.paths import shown

MOST_FILES = 10
_OPAQUE = 32
"""Texts of hex digits from this length on are digests: they say nothing to a reader."""
_LONGEST = 80
_HEX = frozenset("0123456789abcdef")
_METADATA = ("kind", "mode", "uid", "gid", "mtime", "target", "rdev", "xattrs")


def changed_blob(name: str, old: bytes, new: bytes) -> tuple[str, ...]:
    """Lines for two versions of a blob input: paths of trees, keys of JSON objects, else that it changed."""
    if old.startswith(MAGIC) and new.startswith(MAGIC):
        return changed_files(decode_tree(old), decode_tree(new)) or (f"{name} changed",)
    before, after = _json_object(old), _json_object(new)
    if before is not None and after is not None:
        return tuple(f"{name}: {key}" for key in changed_keys(before, after)) or (f"{name} changed",)
    return (f"{name} changed",)


def changed_files(old: Iterable[ManifestEntry], new: Iterable[ManifestEntry]) -> tuple[str, ...]:
    """`PATH: added`, `removed`, or what of it changed; the first ones, then how many more."""
    before, after = {entry.path: entry for entry in old}, {entry.path: entry for entry in new}
    lines: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was is None:
            lines.append(f"{shown(path)}: added")
        elif now is None:
            lines.append(f"{shown(path)}: removed")
        elif what := _changed_entry(was, now):
            lines.append(f"{shown(path)}: {', '.join(what)}")
    return first_of(lines, "file")


def first_of(lines: Sequence[str], noun: str) -> tuple[str, ...]:
    """The first lines, and how many more there are."""
    more = len(lines) - MOST_FILES
    rest = (f"and {more} more {noun if more == 1 else noun + 's'}",) if more > 0 else ()
    return (*lines[:MOST_FILES], *rest)


def changed_fact(name: str, old: Any, new: Any) -> tuple[str, ...]:
    """Lines for two values of a fact: old and new where they are short, members of lists, keys of objects."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return tuple(f"{name}: {key}" for key in changed_keys(old, new))
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        was, now = [_text(item) for item in old], [_text(item) for item in new]
        lines = [f"{name}: - {item}" for item in was if item not in now]
        lines += [f"{name}: + {item}" for item in now if item not in was]
        return first_of(lines, "line") or (f"{name}: in another order",)
    return (change(name, _text(old), _text(new)),)


def change(name: str, old: str, new: str) -> str:
    """`NAME: OLD -> NEW`, or that it changed where they say nothing or too much."""
    if max(len(old), len(new)) > _LONGEST or any(_opaque(text) for text in (old, new)):
        return f"{name} changed"
    return f"{name}: {old} -> {new}"


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what differs. Of a list of NAME=VALUE, an environment, the names of the variables; never a value."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if key == "env":
            variables = _variables(was), _variables(now)
            names = sorted(name for name in {*variables[0], *variables[1]} if variables[0].get(name) != variables[1].get(name))
            found.append(f"env ({', '.join(names)})" if names else "env (in another order)")
        else:
            found.append(key)
    return tuple(found)


def _variables(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    items = value if isinstance(value, (list, tuple)) else ()
    return {name: text for name, _, text in (str(item).partition("=") for item in items)}


def _changed_entry(old: ManifestEntry, new: ManifestEntry) -> list[str]:
    what = ["content"] if old.content != new.content or old.meta.size != new.meta.size else []
    what += [name for name in _METADATA if getattr(old.meta, name) != getattr(new.meta, name)]
    if "mode" in what:
        what[what.index("mode")] = f"mode {old.meta.mode:04o} -> {new.meta.mode:04o}"
    return what or (["flags"] if old.flags != new.flags else [])


def _json_object(data: bytes) -> dict[str, Any] | None:
    if not data.startswith(b"{"):
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _opaque(text: str) -> bool:
    plain = text.rpartition(":")[2]
    return len(plain) >= _OPAQUE and _HEX.issuperset(plain)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, Mapping)):
        text = " ".join(_text(item) for item in (value.values() if isinstance(value, Mapping) else value))
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return str(value)
