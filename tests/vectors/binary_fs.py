"""Vectors of the embedded file system (docs/formats.md section 10)."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from msgspec.structs import replace
from vectors.pattern import pattern

from sconify_tasks.binary_fs.index import HEADER, MAGIC, VERSION, Extent, root_hash
from sconify_tasks.binary_fs.section import outline
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.manifest import Manifest, encode_body
from sconify_tasks.fspf.regions import Protection, Region, Regions
from sconify_tasks.image.entry import Entry, Kind

CHUNK = 65536
REGIONS = Regions.of(
    [Region(path=b"/", protection=Protection.AUTHENTICATED), Region(path=b"/etc/hosts", protection=Protection.NONE)]
)


def digests_of(content: bytes) -> bytes:
    return b"".join(hashlib.sha256(content[at : at + CHUNK]).digest() for at in range(0, len(content), CHUNK))


def extent_of(content: bytes, offset: int = 0) -> Extent:
    return Extent(offset=offset, size=len(content), digests=digests_of(content))


def directory(path: bytes) -> ManifestEntry:
    return ManifestEntry(meta=Entry(path=path, kind=Kind.DIR, mode=0o755))


def file(path: bytes, content: bytes, **meta: Any) -> ManifestEntry:
    """An entry whose content id is the content itself's digest: any key will do."""
    entry = Entry(path=path, kind=Kind.FILE, size=len(content), **meta)
    return ManifestEntry(meta=entry, content=hashlib.sha256(content).digest())


def link(path: bytes, target: bytes) -> ManifestEntry:
    return ManifestEntry(meta=Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target))


def written(visible: list[ManifestEntry], contents: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Root hash and bytes of a section with these files."""
    digests = {hashlib.sha256(content).digest(): digests_of(content) for content in contents.values()}
    files = [file(path, content, mode=0o644) for path, content in contents.items()]
    found = outline(regions=REGIONS, visible=visible, embedded=files, digests=digests)
    placed = {extent.offset: contents[path] for path, extent in found.index().extents.items() if extent.size}
    return found.root, b"".join((found.header, *(placed[at] for at in sorted(placed)), found.body))


def binary_fs() -> dict[str, Any]:
    """Section 10."""
    visible = [directory(b"/app"), directory(b"/app/empty"), directory(b"/etc"), link(b"/app/link", b"small")]
    contents = {
        b"/app/empty.txt": b"",
        b"/app/equal": pattern(5),
        b"/app/large": pattern(2 * CHUNK + 1),
        b"/app/one": pattern(CHUNK),
        b"/app/small": pattern(5),
    }
    cases = [
        _case("nothing embedded", *written([directory(b"/etc")], {}), []),
        _case("files of all sizes", *written(visible, contents), [5, 2 * CHUNK + 1, CHUNK]),
    ]
    for case, files in zip(cases, ({}, contents), strict=True):
        case["files"] = {path.hex(): len(content) for path, content in files.items()}
    return {"format": "sconify/binary-fs/1", "cases": cases, "refused": _refused()}


def _case(name: str, root: bytes, section: bytes, data: list[int]) -> dict[str, Any]:
    end = HEADER.size + sum(data)
    assert section[HEADER.size : end] == b"".join(pattern(size) for size in data)
    return {
        "name": name,
        "root": root.hex(),
        "header": section[: HEADER.size].hex(),
        "data": data,
        "index": section[end:].hex(),
    }


def raw_index(
    entries: list[ManifestEntry], records: list[tuple[int, int, bytes]], *, regions: Regions = REGIONS, count: int | None = None
) -> bytes:
    """An index that nobody checked."""
    body = encode_body(Manifest(regions=regions, entries=tuple(entries)))
    parts = [struct.pack("<I", len(body)), body, struct.pack("<I", len(records) if count is None else count)]
    parts += [struct.pack("<IQ", number, offset) + digests for number, offset, digests in records]
    return b"".join(parts)


def _refused() -> list[dict[str, Any]]:
    small, other = pattern(5), pattern(6)
    extent = extent_of(small)
    named = replace(
        file(b"/a", small, mode=0o644), protection=Protection.AUTHENTICATED, content=hashlib.sha256(digests_of(small)).digest()
    )
    following = replace(
        file(b"/b", other, mode=0o644), protection=Protection.AUTHENTICATED, content=hashlib.sha256(digests_of(other)).digest()
    )
    good = raw_index([named], [(0, 0, extent.digests)])
    two = [(0, 0, extent.digests), (1, 5, digests_of(other))]

    def case(name: str, error: str, body: bytes, sizes: list[int], **header: int) -> dict[str, Any]:
        fields = {"version": VERSION, "flags": 0, "data": sum(sizes), "index": len(body)} | header
        packed = HEADER.pack(MAGIC, fields["version"], fields["flags"], fields["data"], fields["index"])
        return {
            "name": name,
            "error": error,
            "root": root_hash(packed, body).hex(),
            "header": packed.hex(),
            "data": sizes,
            "index": body.hex(),
        }

    encrypted = Regions.of([*REGIONS.regions, Region(path=b"/secret", protection=Protection.ENCRYPTED)])
    open_root = Regions.of([Region(path=b"/", protection=Protection.NONE)])
    main = replace(named, flags=Flag.MAIN)
    return [
        {**case("another magic", "magic", good, [5]), "header": "00" * HEADER.size},
        {**case("another root hash", "root", good, [5]), "root": "11" * 32},
        {**case("a header cut short", "truncated", b"", []), "header": MAGIC.hex()},
        case("version 2", "version", good, [5], version=2),
        case("flags", "flags", good, [5], flags=1),
        case("more data than there is", "length", good, [5], data=6),
        case("less data than there is", "length", good, [5], data=4),
        case("an index beyond the section", "length", good, [5], index=2**40),
        case("lengths that overflow together", "length", good, [5], data=2**64 - 32, index=32),
        case("bytes behind the index", "trailing", good + b"\0", [5]),
        case("a manifest longer than the index", "truncated", struct.pack("<I", 2**32 - 1) + good[4:], [5]),
        case("more extents than bytes", "truncated", raw_index([named], [(0, 0, extent.digests)], count=2**32 - 1), [5]),
        case("digests cut short", "truncated", raw_index([named], [(0, 0, extent.digests[:-1])]), [5]),
        case("an extent of no entry", "extent", raw_index([named], [(1, 0, extent.digests)]), [5]),
        case("an extent twice", "extent", raw_index([named], [(0, 0, extent.digests)] * 2), [5]),
        case("extents out of order", "extent", raw_index([named, following], two[::-1]), [5, 6]),
        case("an extent of a directory", "extent", raw_index([replace(directory(b"/a"))], [(0, 0, b"")]), []),
        case("an extent of the program", "extent", raw_index([main], [(0, 0, extent.digests)]), [5]),
        case("a gap before the first file", "extent", raw_index([named], [(0, 1, extent.digests)]), [6]),
        case("two files that overlap", "extent", raw_index([named, following], [two[0], (1, 4, two[1][2])]), [5, 5]),
        case("data that no file has", "extent", raw_index([named], [(0, 0, extent.digests)]), [6]),
        case("a file larger than the data", "extent", raw_index([named], [(0, 0, extent.digests)]), [4]),
        case("a name of other digests", "content", raw_index([named], [(0, 0, digests_of(other))]), [5]),
        case("an encrypted region", "class", raw_index([named], [(0, 0, extent.digests)], regions=encrypted), [5]),
        case(
            "a root that is not authenticated",
            "root-region",
            raw_index([named], [(0, 0, extent.digests)], regions=open_root),
            [5],
        ),
        case("a path that is not normalised", "path", good.replace(b"\x02\x00/a", b"\x02\x00/."), [5]),
    ]
