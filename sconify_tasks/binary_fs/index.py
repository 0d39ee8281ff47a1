"""The index of the section `.sconify.fs`: regions, entries, and where each embedded file lies (docs/formats.md section 10)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from msgspec import Struct

from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.manifest import Manifest, check_manifest, decode_body, encode_body
from sconify_tasks.fspf.reading import U32, Cursor
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.image.entry import Kind

MAGIC = b"SCONBNFS"
VERSION = 1
CHUNK = 65536
HEADER = struct.Struct("<8sIIQQ")
"""Magic, version, flags (0), bytes of data, bytes of index."""
DIGEST = 32
MAX_INDEX = 512 << 20
MAX_DATA = 1 << 40
_RECORD = struct.Struct("<IQ")


class Extent(Struct, frozen=True, kw_only=True):
    """Where a file's content lies in the data, and the SHA-256 of each of its chunks of 64 KiB, joined."""

    offset: int
    size: int
    digests: bytes

    def content(self) -> bytes:
        """What the entry names the file by: SHA-256 over the digests of its chunks."""
        return hashlib.sha256(self.digests).digest()

    def chunks(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset in the data, length and digest of each chunk."""
        for number in range(chunk_count(self.size)):
            start = number * CHUNK
            yield self.offset + start, min(CHUNK, self.size - start), self.digests[number * DIGEST : (number + 1) * DIGEST]


class Index(Struct, frozen=True, kw_only=True):
    """What is visible (`manifest`), and the extents of what is embedded, by path. Other files lie in the image's layers."""

    manifest: Manifest
    extents: dict[bytes, Extent]


def chunk_count(size: int) -> int:
    """How many chunks a file has; an empty one has none."""
    return -(-size // CHUNK)


def root_hash(header: bytes, body: bytes) -> bytes:
    """What the measured config holds: every byte of the section follows from it."""
    return hashlib.sha256(header + body).digest()


def encode_header(*, data: int, index: int) -> bytes:
    """The first 32 bytes of the section."""
    return HEADER.pack(MAGIC, VERSION, 0, data, index)


def decode_header(data: bytes, *, section: int) -> tuple[int, int]:
    """Return the lengths of data and index; MalformedError unless they fill a section of this length exactly."""
    magic, version, flags, length, index = Cursor(data).unpack(HEADER)
    if magic != MAGIC:
        raise MalformedError("magic", "this is not an embedded file system")
    if version != VERSION:
        raise MalformedError("version", f"binary-fs version {version} is unknown: this program reads version {VERSION}")
    if flags:
        raise MalformedError("flags", f"the embedded file system has unknown flags: {flags:#x}")
    if length > MAX_DATA or index > MAX_INDEX or HEADER.size + length + index != section:
        raise MalformedError("length", f"{length} bytes of data and {index} of index do not fill a section of {section} bytes")
    return length, index


def encode_index(index: Index) -> bytes:
    """Check and encode; the extents' order is that of the entries."""
    check_index(index, data=_end(index))
    body = encode_body(index.manifest)
    parts = [U32.pack(len(body)), body, U32.pack(len(index.extents))]
    for number, entry in enumerate(index.manifest.entries):
        extent = index.extents.get(entry.path)
        if extent is not None:
            parts += (_RECORD.pack(number, extent.offset), extent.digests)
    return b"".join(parts)


def decode_index(body: bytes, *, data: int) -> Index:
    """Decode and check an index over `data` bytes; MalformedError says what is wrong."""
    cursor = Cursor(body)
    manifest = decode_body(cursor.take_prefixed(U32))
    (count,) = cursor.unpack(U32)
    extents: dict[bytes, Extent] = {}
    previous = -1
    for _ in range(count):
        number, offset = cursor.unpack(_RECORD)
        if not previous < number < len(manifest.entries):
            raise MalformedError("extent", f"the extent of entry {number} is out of order")
        previous = number
        entry = manifest.entries[number]
        if entry.meta.kind is not Kind.FILE or entry.meta.size > data:
            raise MalformedError("extent", f"{entry.path[:200]!r} can't have an extent")
        digests = cursor.take(DIGEST * chunk_count(entry.meta.size))
        extents[entry.path] = Extent(offset=offset, size=entry.meta.size, digests=digests)
    cursor.finish()
    index = Index(manifest=manifest, extents=extents)
    check_index(index, data=data)
    return index


def check_index(index: Index, *, data: int) -> None:
    """Check what readers rely on; MalformedError names the entry.

    Nothing is encrypted, and `/` is authenticated. Extents fill the data without gap or overlap in the order of the entries;
    a file with content that came before has that very extent.
    """
    check_manifest(index.manifest)
    if index.manifest.regions.by_path[b"/"] is not Protection.AUTHENTICATED:
        raise MalformedError("root-region", "the root of an embedded file system is not authenticated")
    if any(region.protection is Protection.ENCRYPTED for region in index.manifest.regions.regions):
        raise MalformedError("class", "a region of an embedded file system can't be encrypted")
    seen: dict[bytes, Extent] = {}
    end = 0
    for entry in index.manifest.entries:
        extent = index.extents.get(entry.path)
        if extent is None:
            continue
        _check_extent(entry, extent, seen.get(extent.digests), end)
        if extent.digests not in seen:
            seen[extent.digests] = extent
            end += extent.size
    if end != data:
        raise MalformedError("extent", f"the extents end at {end}, the data at {data}")


def _check_extent(entry: ManifestEntry, extent: Extent, before: Extent | None, end: int) -> None:
    expected = before.offset if before is not None else end
    if entry.flags & Flag.MAIN or extent.offset != expected or (before is not None and before.size != extent.size):
        raise MalformedError("extent", f"the extent of {entry.path[:200]!r} is not where it belongs")
    if len(extent.digests) != DIGEST * chunk_count(extent.size) or entry.content != extent.content():
        raise MalformedError("content", f"{entry.path[:200]!r} is not named by the digests of its chunks")


def _end(index: Index) -> int:
    return sum(size for _, size in {(extent.offset, extent.size) for extent in index.extents.values()})
