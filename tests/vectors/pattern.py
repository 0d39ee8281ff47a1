"""The content of files in vectors, known from its size."""

from __future__ import annotations


def pattern(size: int) -> bytes:
    """Byte i is (i ^ i>>8 ^ i>>16) & 0xFF."""
    return bytes((i ^ i >> 8 ^ i >> 16) & 0xFF for i in range(size))
