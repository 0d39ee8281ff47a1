"""Writes a section: contents are hashed once, when they are staged; the rest is copied inside the kernel, in long runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import SEEK_END
from pathlib import Path
from typing import BinaryIO

from sconify_tasks.binary_fs.index import CHUNK, HEADER, Extent, Index, encode_header, encode_index, root_hash
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.manifest import Manifest
from sconify_tasks.fspf.regions import Protection, Regions
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.paths import shown
from sconify_tasks.kernel_copy import copy_range

_BLOCK = 16 * CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a content can be copied from: `extent.offset` counts from the beginning of the file."""

    path: Path
    extent: Extent
    staged: bool = False


@dataclass(slots=True, kw_only=True)
class Staging:
    """Contents that no earlier section has, in one file, in the order in which they come.

    Where that is the order of a section, and nothing else goes into it, the file becomes the section as it lies.
    """

    path: Path
    key: bytes = field(repr=False)
    size: int = HEADER.size

    def open(self) -> BinaryIO:
        """Make the file, with room for a section's header."""
        out = self.path.open("wb")
        out.write(bytes(HEADER.size))
        return out

    def add(self, entry: Entry, content: BinaryIO, content_id: bytes, out: BinaryIO, *, vouched: bool = False) -> Source:
        """Copy and hash one content; SconifyError where it is not what the content id says.

        `vouched`: the source gave that id, and notices by itself a file that changed since.
        """
        from blake3 import blake3

        start, digests, keyed = self.size, bytearray(), blake3(key=self.key)
        while block := _read(content):
            if not vouched:
                keyed.update(block)
            view = memoryview(block)
            for position in range(0, len(block), CHUNK):
                digests += hashlib.sha256(view[position : position + CHUNK]).digest()
            out.write(block)
            self.size += len(block)
        size = self.size - start
        if size != entry.size or not (vouched or keyed.digest() == content_id):
            raise SconifyError(f"{shown(entry.path)} changed while it was read", hint="build again when nothing writes to it")
        return Source(path=self.path, extent=Extent(offset=start, size=size, digests=bytes(digests)), staged=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The root hash of a section that was written, and its extents by content id."""

    root: bytes
    extents: Mapping[bytes, Extent]


def write_section(
    path: Path,
    *,
    regions: Regions,
    visible: Iterable[ManifestEntry],
    embedded: Iterable[ManifestEntry],
    sources: Mapping[bytes, Source],
) -> Written:
    """Write a section to a new file at `path`, or make it of a staging file that is one but for header and index.

    `embedded` are entries whose `content` is a key of `sources`; `visible` are all others. Every class is set here. The
    result depends on entries and contents alone: contents lie in the order of the paths, each once.
    """
    files = sorted(embedded, key=lambda entry: entry.path)
    by_id, order = _layout(files, sources)
    entries = [replace(entry, content=by_id[entry.content].content()) for entry in files] + list(visible)
    manifest = Manifest(
        regions=regions,
        entries=tuple(
            replace(entry, protection=Protection.AUTHENTICATED) for entry in sorted(entries, key=lambda entry: entry.path)
        ),
    )
    body = encode_index(Index(manifest=manifest, extents={entry.path: by_id[entry.content] for entry in files}))
    header = encode_header(data=sum(source.extent.size for source in order), index=len(body))
    if _is_section(order):
        order[0].path.rename(path)
        with path.open("r+b") as out:
            out.write(header)
            out.seek(0, SEEK_END)
            out.write(body)
    else:
        with path.open("wb") as out:
            out.write(header)
            _copy_runs(order, out)
            out.write(body)
    return Written(root=root_hash(header, body), extents=by_id)


def _is_section(order: Sequence[Source]) -> bool:
    """Whether the contents lie in one staging file as in a section, and nothing beside them."""
    end = HEADER.size
    for source in order:
        if not source.staged or source.path != order[0].path or source.extent.offset != end:
            return False
        end += source.extent.size
    return bool(order) and order[0].path.stat().st_size == end


def _layout(files: Sequence[ManifestEntry], sources: Mapping[bytes, Source]) -> tuple[dict[bytes, Extent], list[Source]]:
    """Give every content its place: in the order of the paths, equal ones once."""
    by_id: dict[bytes, Extent] = {}
    by_digests: dict[bytes, Extent] = {}
    order: list[Source] = []
    end = 0
    for entry in files:
        if entry.content in by_id:
            continue
        source = sources[entry.content]
        fresh = replace(source.extent, offset=end)
        placed = by_id[entry.content] = by_digests.setdefault(fresh.digests, fresh)
        if placed is fresh:
            order.append(source)
            end += fresh.size
    return by_id, order


def _copy_runs(order: Sequence[Source], out: BinaryIO) -> None:
    """Copy the contents; what lies together in one file is copied in one go."""
    position = 0
    while position < len(order):
        first = order[position]
        length = 0
        while position < len(order):
            following = order[position]
            if following.path != first.path or following.extent.offset != first.extent.offset + length:
                break
            length += following.extent.size
            position += 1
        with first.path.open("rb") as source:
            source.seek(first.extent.offset)
            copy_range(source, out, length)


def known_sources(path: Path, extents: Mapping[bytes, Extent]) -> dict[bytes, Source]:
    """What an earlier section in a file of its own has."""
    return {
        content_id: Source(path=path, extent=replace(extent, offset=HEADER.size + extent.offset))
        for content_id, extent in extents.items()
    }


def _read(content: BinaryIO) -> bytes:
    """A whole number of chunks, unless the content ends."""
    block = content.read(_BLOCK)
    while block and len(block) % CHUNK and (more := content.read(CHUNK - len(block) % CHUNK)):
        block += more
    return block
