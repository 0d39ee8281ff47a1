"""Single fields of a session text: checked, and noted where they use what is not built yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sconify_tasks.policy.model import NotBuilt
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.yaml_nodes import Node

_NAME = re.compile(r"[A-Za-z0-9_\-.~]{1,128}")
_PLACEHOLDER = re.compile(r"\$\$SCONE::")
_HEX = re.compile(r"[0-9A-Fa-f]*")

Notes = list[NotBuilt]


def note(notes: Notes, node: Node, feature: str) -> None:
    """Remember that this session asks for something well-formed that is not built yet."""
    notes.append(NotBuilt(line=node.line, feature=feature))


def text(node: Node, what: str, notes: Notes) -> str:
    """Return text without NUL; note a placeholder."""
    value = node.text(what)
    if "\0" in value:
        raise node.error(f"{what} has a NUL character")
    if _PLACEHOLDER.search(value):
        note(notes, node, f"the placeholder $$SCONE::…$$ in {what}")
    return value


def name(node: Node, what: str) -> str:
    """Return a name that can be a segment of a path of sessions."""
    value = node.text(what)
    if not _NAME.fullmatch(value):
        raise node.error(f"{what} {value[:60]!r} is not 1 to 128 of A-Z a-z 0-9 _ - . ~")
    return value


def path(node: Node, what: str, notes: Notes) -> str:
    """Return an absolute path."""
    value = text(node, what, notes)
    if not value.startswith("/"):
        raise node.error(f"{what} must be an absolute path, not {value[:60]!r}")
    return value


def hexadecimal(node: Node, what: str, notes: Notes, *, size: int) -> str:
    """Return `size` bytes as lower-case hex; the value itself may be a secret and is not repeated in the error."""
    value = text(node, what, notes)
    if _PLACEHOLDER.match(value):
        return value
    if len(value) != 2 * size or not _HEX.fullmatch(value):
        raise node.error(f"{what} must be {2 * size} hex digits ({size} bytes)")
    return value.lower()


def measurement(node: Node, what: str) -> MrEnclave:
    """Return a 32-byte measurement."""
    try:
        return MrEnclave(node.text(what).lower())
    except ValueError as error:
        raise node.error(f"{what}: {error}") from None


def choice(node: Node, what: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed words."""
    value = node.text(what)
    if value not in allowed:
        raise node.error(f"{what} is {value[:60]!r}", hint=f"allowed: {', '.join(allowed)}")
    return value


def required(found: Mapping[str, Node], key: str, node: Node, what: str) -> Node:
    """Return the value of a key that must be there."""
    value = found.get(key)
    if value is None:
        raise node.error(f"{what} has no {key!r}")
    return value


def distinct(names: Iterable[tuple[str, Node]], what: str) -> None:
    """Raise when two items of a list carry one name."""
    seen: set[str] = set()
    for value, node in names:
        if value in seen:
            raise node.error(f"a second {what} is named {value[:60]!r}")
        seen.add(value)
