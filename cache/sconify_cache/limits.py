"""Limits as people write them: sizes in binary units ("20G"), ages ("30d")."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,12})([KMGT]?)")
_AGE: Final = re.compile(r"([0-9]{1,6})([hdw])")
_UNIT: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HOURS: Final = {"h": 1, "d": 24, "w": 168}


def size(text: str) -> int:
    """Bytes of "20G", "512M", "1000"; ValueError otherwise."""
    if not (found := _SIZE.fullmatch(text)):
        raise ValueError(text)
    return int(found[1]) * _UNIT[found[2]]


def age(text: str) -> int:
    """Nanoseconds of "12h", "30d", "8w"; ValueError otherwise."""
    if not (found := _AGE.fullmatch(text)):
        raise ValueError(text)
    return int(found[1]) * _HOURS[found[2]] * 3600 * 10**9
