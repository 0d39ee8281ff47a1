"""HKDF-SHA256 (RFC 5869) of one block: every key of the project, and of every protected file, is derived here.

With the standard library's HMAC: a run that finds nothing to do derives keys too, and loads no library for it.
"""

from __future__ import annotations

import hmac

LONGEST = 32
"""Bytes of one block of SHA-256."""


def hkdf(key: bytes, *, salt: bytes = b"", info: bytes, length: int = LONGEST) -> bytes:
    """Extract, then expand to `length` bytes; ValueError for more than one block. No salt is a block of zeros (section 2.2)."""
    if not 0 < length <= LONGEST:
        raise ValueError(f"{length} bytes are not one block of SHA-256")
    return hmac.digest(hmac.digest(salt, key, "sha256"), info + b"\x01", "sha256")[:length]
