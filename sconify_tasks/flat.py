"""Nested documents by dotted names, to be compared and shown value by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; lists of mappings by their number."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            found |= flat({str(number): item for number, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
