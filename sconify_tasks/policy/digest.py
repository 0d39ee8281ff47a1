"""The hash of a session: the name of one version, and what the next version's `predecessor` holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sconify_tasks.errors import UsageError
from sconify_tasks.yaml_nodes import Node, load

_LABEL = b"sconify/session/1\0"
# Who uploads a text, and over what, does not change what the text says.
_OUTSIDE = ("predecessor", "creator")


def session_hash(text: str) -> str:
    """Return 64 hex digits: SHA-256 over the RFC 8785 form of the session, without predecessor and creator.

    Comments, the order of keys and the style of quoting don't count; every value does, as it is written.
    """
    import rfc8785

    root = load(text, name="session")
    top = {key: _canonical(item) for key, item in root.mapping("a session").items() if key not in _OUTSIDE}
    try:
        return hashlib.sha256(_LABEL + rfc8785.dumps(top)).hexdigest()
    except (ValueError, UnicodeError) as error:
        raise UsageError(f"session: a value has no canonical form: {error}") from None


def _canonical(node: Node) -> Any:
    if isinstance(node.value, tuple):
        return [_canonical(item) for item in node.value]
    if isinstance(node.value, Mapping):
        return {key: _canonical(item) for key, item in node.value.items()}
    return None if node.is_null else node.value
