"""Reads a section strictly: the index against its root hash, and every byte of the data against the index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO

from msgspec import Struct

from sconify_tasks.binary_fs.index import CHUNK, HEADER, Extent, Index, decode_header, decode_index, root_hash
from sconify_tasks.fspf.errors import MalformedError

_Chunk = tuple[int, int, bytes]
_BUFFER = 256 << 10  # stays in the processor's cache while it is hashed; whole chunks


class Section(Struct, frozen=True, kw_only=True):
    """An opened section: `start` is where it begins in `file`."""

    file: BinaryIO
    start: int
    index: Index

    def read(self, extent: Extent) -> Iterator[bytes]:
        """Yield a file's content by verified chunks; MalformedError for a chunk that was changed."""
        for offset, length, digest in extent.chunks():
            self.file.seek(self.start + HEADER.size + offset)
            chunk = exactly(self.file, length)
            if hashlib.sha256(chunk).digest() != digest:
                raise MalformedError("chunk", f"the embedded data is damaged at byte {offset}")
            yield chunk

    def check(self, extents: Iterable[Extent]) -> None:
        """Read files' contents and hold them against their digests; MalformedError for a chunk that was changed."""
        buffer = memoryview(bytearray(_BUFFER))
        for extent in extents:
            self.file.seek(self.start + HEADER.size + extent.offset)
            for chunks in _batched(extent.chunks(), _BUFFER // CHUNK):
                first, size = chunks[0][0], sum(length for _, length, _ in chunks)
                block = _into(self.file, buffer[:size])
                for offset, length, digest in chunks:
                    if hashlib.sha256(block[offset - first : offset - first + length]).digest() != digest:
                        raise MalformedError("chunk", f"the embedded data is damaged at byte {offset}")


def _batched(chunks: Iterator[_Chunk], count: int) -> Iterator[list[_Chunk]]:
    while batch := list(islice(chunks, count)):
        yield batch


def _into(file: BinaryIO, view: memoryview) -> memoryview:
    """Fill the view as far as the file goes."""
    got = 0
    while got < len(view) and (count := file.readinto(view[got:])):  # type: ignore[attr-defined]
        got += count
    return view[:got]


def exactly(content: BinaryIO, length: int) -> bytes:
    """Fewer bytes only where the content ends."""
    data = content.read(length)
    while data and len(data) < length and (more := content.read(length - len(data))):
        data += more
    return data


def open_section(file: BinaryIO, *, offset: int, size: int, root: bytes) -> Section:
    """Read the index of the section at `offset`; MalformedError unless it is the one that `root` names."""
    file.seek(offset)
    header = exactly(file, min(HEADER.size, size))
    data, length = decode_header(header, section=size)
    file.seek(offset + HEADER.size + data)
    body = exactly(file, length)
    if len(body) != length or root_hash(header, body) != root:
        raise MalformedError("root", "the embedded file system is not the one that was measured")
    return Section(file=file, start=offset, index=decode_index(body, data=data))
