"""A section without its data: header and index, which say where in the data each content lies. `filling` brings the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.binary_fs.index import (
    HEADER,
    Extent,
    Index,
    decode_header,
    decode_index,
    encode_header,
    encode_index,
    root_hash,
)
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.manifest import Manifest
from sconify_tasks.fspf.regions import Protection, Regions


class Outline(Struct, frozen=True, kw_only=True):
    """Header and encoded index of a section, and how many bytes of data belong between them."""

    header: bytes
    body: bytes
    data: int

    @property
    def root(self) -> bytes:
        """What is measured."""
        return root_hash(self.header, self.body)

    @property
    def size(self) -> int:
        """Of the whole section."""
        return len(self.header) + self.data + len(self.body)

    def index(self) -> Index:
        """Decode and check; MalformedError."""
        return decode_index(self.body, data=self.data)

    def encode(self) -> bytes:
        """As one blob."""
        return self.header + self.body


def outline(
    *, regions: Regions, visible: Iterable[ManifestEntry], embedded: Iterable[ManifestEntry], digests: Mapping[bytes, bytes]
) -> Outline:
    """Lay out a section: contents in the order of the paths, each once.

    `embedded` are files whose `content` is a key of `digests` (the SHA-256 of each chunk, joined); `visible` are all other
    entries. Every class is set here. The result depends on entries and contents alone.
    """
    files = sorted(embedded, key=lambda entry: entry.path)
    by_digests: dict[bytes, Extent] = {}
    extents: dict[bytes, Extent] = {}
    end = 0
    for entry in files:
        fresh = Extent(offset=end, size=entry.meta.size, digests=digests[entry.content])
        placed = extents[entry.path] = by_digests.setdefault(fresh.digests, fresh)
        if placed is fresh:
            end += fresh.size
    entries = [replace(entry, content=extents[entry.path].content()) for entry in files] + list(visible)
    manifest = Manifest(
        regions=regions,
        entries=tuple(
            replace(entry, protection=Protection.AUTHENTICATED) for entry in sorted(entries, key=lambda entry: entry.path)
        ),
    )
    body = encode_index(Index(manifest=manifest, extents=extents))
    return Outline(header=encode_header(data=end, index=len(body)), body=body, data=end)


def decode_outline(blob: bytes) -> Outline:
    """The inverse of `encode`; MalformedError."""
    if len(blob) < HEADER.size:
        raise MalformedError("truncated", "the header of an embedded file system is cut short")
    header, body = blob[: HEADER.size], blob[HEADER.size :]
    data = int(HEADER.unpack(header)[3])
    decode_header(header, section=data + len(blob))
    return Outline(header=header, body=body, data=data)
