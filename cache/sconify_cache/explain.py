"""What differs between two actions' components, said for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sconify_cache.keys import JSON, canonical

# Digests, keyed ids of secrets among them, say nothing to a reader; long values say too much.
_OPAQUE = re.compile(r'"(?:[a-z0-9]+:)?[0-9a-f]{32,}"\Z')
_LONGEST = 60
_ABSENT = object()


def diff(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> tuple[str, ...]:
    """One line per component that differs: `options.heap: 1 -> 2`, `inputs.tree changed`, `inputs.x is new`."""
    before, after = _flat(old), _flat(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if was == now:
            continue
        if was is _ABSENT:
            lines.append(f"{name} is new")
        elif now is _ABSENT:
            lines.append(f"{name} is gone")
        else:
            lines.append(_change(name, str(was), str(now)))
    return tuple(lines)


def _change(name: str, was: str, now: str) -> str:
    shown = all(len(text) <= _LONGEST and not _OPAQUE.match(text) for text in (was, now))
    return f"{name}: {was} -> {now}" if shown else f"{name} changed"


def _flat(value: Mapping[str, JSON], prefix: str = "") -> dict[str, str]:
    """Nested objects as dotted names; every other value as its canonical JSON, so that 1 and true differ."""
    flat: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            flat.update(_flat(item, f"{prefix}{name}."))
        else:
            flat[prefix + name] = canonical(item).decode()
    return flat
