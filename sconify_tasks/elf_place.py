"""Where an ELF file lies: in memory, in a file of its own, or in the middle of another file, as in a layer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct


class FilePart(Struct, frozen=True, kw_only=True):
    """`size` bytes at `offset` of a file, which must not become shorter while they are read."""

    path: Path
    offset: int
    size: int
    name: str


ElfPlace = bytes | Path | FilePart


def opened(place: ElfPlace) -> BinaryIO:
    """A seekable stream over the ELF file alone; OSError where it can't be opened."""
    if isinstance(place, bytes):
        return io.BytesIO(place)
    if isinstance(place, Path):
        return place.open("rb")
    from sconify_tasks.image.extent import Extent

    return Extent(file=cast("BinaryIO", place.path.open("rb")), start=place.offset, size=place.size).stream()
