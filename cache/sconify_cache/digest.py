"""Identities: BLAKE3 digests of blobs and of actions, as a type."""

from __future__ import annotations

import re
from typing import Self

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


class Digest(str):
    """BLAKE3-256 of a blob or of an action's canonical JSON: 64 lower-case hex digits."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError for anything but 64 lower-case hex digits."""
        if not _HEX64.match(value):
            msg = f"not a BLAKE3 digest: {value[:80]!r}"
            raise ValueError(msg)
        return super().__new__(cls, value)
