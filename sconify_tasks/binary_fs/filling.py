"""Writes a section in its place: each content comes from an earlier layer or the native image, straight to where it stays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sconify_tasks.ahead import Ahead, Promise
from sconify_tasks.binary_fs.index import HEADER, Extent, decode_header, decode_index
from sconify_tasks.binary_fs.reading import exactly
from sconify_tasks.binary_fs.section import Outline
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.image.paths import shown
from sconify_tasks.image.source import ContentIdSource, SourceImage, WholeFile
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.kernel_copy import Copier, copy_range, is_plain_file

_HINT = "build again when nothing writes to it"


@dataclass(slots=True, kw_only=True)
class Filling:
    """A section whose data is found while it is written. `known` has ranges of files by the digests of their chunks."""

    outline: Outline
    native: Callable[[], SourceImage]
    known: Mapping[bytes, FileRange] = field(default_factory=dict)
    progress: Callable[[int], None] = lambda _: None
    read: int = 0
    copied: int = 0

    @property
    def size(self) -> int:
        """Of the whole section."""
        return self.outline.size

    def write_to(self, out: BinaryIO) -> None:
        """Write the section where `out` stands, which must be seekable. SconifyError where a file is not what was hashed."""
        start = out.tell() + HEADER.size
        out.write(self.outline.header)
        contents: dict[bytes, tuple[bytes, Extent]] = {}
        for path, extent in self.outline.index().extents.items():
            contents.setdefault(extent.digests, (path, extent))
        self.copied = self._copy_known(out, start, contents)
        missing = {path: extent for digests, (path, extent) in contents.items() if digests not in self.known}
        self.read = len(missing)
        if missing:
            self._read_missing(out, start, missing)
        out.seek(start + self.outline.data)
        out.write(self.outline.body)

    def _copy_known(self, out: BinaryIO, start: int, contents: Mapping[bytes, tuple[bytes, Extent]]) -> int:
        count = 0
        for extents, source in _runs(contents, self.known):
            out.seek(start + extents[0].offset)
            with source.path.open("rb") as file:
                file.seek(source.offset)
                copy_range(file, out, sum(extent.size for extent in extents))
            count += len(extents)
        return count

    def _read_missing(self, out: BinaryIO, start: int, missing: dict[bytes, Extent]) -> None:
        native = self.native()
        known = native.content_id if isinstance(native, ContentIdSource) else None
        out.flush()
        copier = Copier(out) if is_plain_file(out) else None
        with Ahead[int]() as copies, native.walk(sorted(missing)) as stream:

            def contents() -> Iterator[tuple[bytes, int | Promise[int]]]:
                for entry, content in stream:
                    extent = missing.pop(entry.path, None)
                    if extent is None or content is None:
                        continue
                    at = start + extent.offset
                    if known is None or known(entry.path) is None:
                        out.seek(at)
                        _copy_checked(entry.path, content, out, extent)
                    elif copier is not None and isinstance(content, WholeFile) and extent.size:
                        yield entry.path, _copy_ahead(copies, copier, content, at, extent.size)
                        continue
                    else:
                        # The source notices by itself a file that changed since its content id was taken.
                        out.seek(at)
                        copy_range(content, out, extent.size)
                    yield entry.path, extent.size

            for _, size in copies.in_order(contents()):
                self.progress(size)
        if missing:
            raise SconifyError(f"{shown(min(missing))} is gone from the native image", hint=_HINT)


def _copy_ahead(copies: Ahead[int], copier: Copier, content: WholeFile, offset: int, size: int) -> Promise[int]:
    descriptor, check = content.hand_over()

    def copy() -> int:
        try:
            copier.copy(descriptor, offset, size)
            check(descriptor)
        finally:
            os.close(descriptor)
        return size

    return copies.do(copy, drop=lambda: os.close(descriptor))


def known_contents(path: Path, section: int) -> dict[bytes, FileRange]:
    """What the section at this offset of a file holds; MalformedError unless it is one."""
    with path.open("rb") as file:
        file.seek(section)
        header = file.read(HEADER.size)
        if len(header) != HEADER.size:
            raise MalformedError("truncated", "the file ends before the embedded file system")
        *_, data, length = HEADER.unpack(header)
        decode_header(header, section=HEADER.size + data + length)
        file.seek(data, 1)
        index = decode_index(file.read(length), data=data)
    start = section + HEADER.size
    return {
        extent.digests: FileRange(path=path, offset=start + extent.offset, length=extent.size)
        for extent in index.extents.values()
    }


def _runs(
    contents: Mapping[bytes, tuple[bytes, Extent]], known: Mapping[bytes, FileRange]
) -> Iterator[tuple[list[Extent], FileRange]]:
    """What is known, and lies together in source and section, in one go."""
    run: list[Extent] = []
    first = None
    for digests, (_, extent) in contents.items():
        source = known.get(digests)
        if source is None:
            continue
        if first is not None and _follows(run, first, extent, source):
            run.append(extent)
            continue
        if first is not None:
            yield run, first
        run, first = [extent], source
    if first is not None:
        yield run, first


def _follows(run: list[Extent], first: FileRange, extent: Extent, source: FileRange) -> bool:
    length = run[-1].offset + run[-1].size - run[0].offset
    return source.path == first.path and source.offset == first.offset + length and extent.offset == run[0].offset + length


def _copy_checked(path: bytes, content: BinaryIO, out: BinaryIO, extent: Extent) -> None:
    for _, length, digest in extent.chunks():
        chunk = exactly(content, length)
        if hashlib.sha256(chunk).digest() != digest:
            raise SconifyError(f"{shown(path)} changed while it was read", hint=_HINT)
        out.write(chunk)
    if content.read(1):
        raise SconifyError(f"{shown(path)} changed while it was read", hint=_HINT)
