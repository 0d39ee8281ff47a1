"""The enclave's layout: which pages with which content and permissions (docs/formats.md section 6).

Cost follows the runtime's segments and the number of threads. Heap, stacks and payload are not measured page by page:
the config page names them, and what is in the payload is authenticated when it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from msgspec import Struct

from sconify_tasks.elf import LoadSegment, load_image
from sconify_tasks.elf_place import ElfPlace, opened
from sconify_tasks.sgx.measured_config import PAGE, MeasuredConfig
from sconify_tasks.sgx.measurement import EnclaveError

LAYOUT_VERSION = 1
READ, WRITE, EXECUTE = 1, 2, 4
REG, TCS = 2 << 8, 1 << 8

STACK_PAGES = 16
SSA_PAGES = 2
SSA_FRAME_PAGES = 1
THREAD_PAGES = 1 + STACK_PAGES + 1 + 1 + SSA_PAGES
"""Guard, stack, guard, TCS, SSA."""

MIN_SIZE = 1 << 21
MAX_RUNTIME = 1 << 30
"""Far above any runtime: a hostile p_memsz must not make the build measure for days."""

_TCS = struct.Struct("<16xQIIQ8xQQII")
_TCS_LIMIT = 0xFFF
_ZERO_PAGE = bytes(PAGE)


class Page(Struct, frozen=True, kw_only=True):
    """One measured page: offset from BASE, SECINFO flags, 4096 bytes."""

    offset: int
    flags: int
    content: bytes


class Segment(Struct, frozen=True, kw_only=True):
    """One PT_LOAD in pages relative to BASE, with where its bytes lie in the file."""

    start: int
    end: int
    flags: int
    lead: int
    file_offset: int
    file_size: int


class Layout(Struct, frozen=True, kw_only=True):
    """Everything ECREATE and EADD need, in the order of the format."""

    segments: tuple[Segment, ...]
    file_places: tuple[range, ...]
    entry: int
    config_offset: int
    config: bytes
    threads_offset: int
    threads: int
    size: int

    def pages(self, runtime: ElfPlace) -> Iterator[Page]:
        """Yield every measured page, in order. `runtime` is the ELF that the layout was made from."""
        with opened(runtime) as file:
            for segment in self.segments:
                yield from _segment_pages(file, segment, self.file_places)
        for position in range(0, len(self.config), PAGE):
            content = self.config[position : position + PAGE]
            yield Page(offset=self.config_offset + position, flags=REG | READ, content=content)
        for number in range(self.threads):
            yield from _thread_pages(self.threads_offset + number * THREAD_PAGES * PAGE, self.entry)


def layout(runtime: ElfPlace, config: MeasuredConfig) -> Layout:
    """Lay out the enclave of a runtime ELF (plain or sconified); EnclaveError where it can't be one."""
    image = load_image(runtime)
    base, segments = _segments(image.segments)
    entry = image.entry - base
    encoded = config.encode()
    config_offset = segments[-1].end
    threads_offset = config_offset + len(encoded)
    end = threads_offset + config.threads * THREAD_PAGES * PAGE
    end += config.heap + config.threads * max(0, config.stack - STACK_PAGES * PAGE)
    if not any(segment.start <= entry < segment.end for segment in segments):
        raise EnclaveError("entry", "the entry point of the runtime lies outside of its segments")
    return Layout(
        segments=segments,
        file_places=image.file_places,
        entry=entry,
        config_offset=config_offset,
        config=encoded,
        threads_offset=threads_offset,
        threads=config.threads,
        size=max(MIN_SIZE, 1 << (end - 1).bit_length()),
    )


def _segments(headers: tuple[LoadSegment, ...]) -> tuple[int, tuple[Segment, ...]]:
    """Return BASE, and the segments relative to it in program-header order."""
    if not headers:
        raise EnclaveError("segments", "the runtime has no loadable segment")
    base = headers[0].address // PAGE * PAGE
    segments = tuple(
        Segment(
            start=header.address // PAGE * PAGE - base,
            end=-(-(header.address + header.memory_size) // PAGE) * PAGE - base,
            flags=REG | header.read | header.write << 1 | header.execute << 2,
            lead=header.address % PAGE,
            file_offset=header.offset,
            file_size=header.file_size,
        )
        for header in headers
    )
    for before, after in pairwise(segments):
        if after.start < before.end:
            raise EnclaveError("overlap", "two segments of the runtime share a page, or are not in ascending order")
    if segments[-1].end > MAX_RUNTIME:
        raise EnclaveError("segments", "the segments of the runtime span more than a runtime can")
    return base, segments


def _segment_pages(file: BinaryIO, segment: Segment, file_places: tuple[range, ...]) -> Iterator[Page]:
    file.seek(segment.file_offset)
    content = file.read(segment.file_size)
    if len(content) != segment.file_size:
        raise EnclaveError("truncated", "the runtime ends inside a segment")
    content = bytes(segment.lead) + _without(file_places, content, segment.file_offset)
    # The zero pages that follow are added with EAUG, which gives zeros: what is in them can't be anything else.
    content = content.rstrip(b"\0")
    for position in range(0, len(content), PAGE):
        page = content[position : position + PAGE]
        yield Page(offset=segment.start + position, flags=segment.flags, content=page.ljust(PAGE, b"\0"))


def _without(places: tuple[range, ...], content: bytes, start: int) -> bytes:
    """Zero those ranges of the file in `content`, which begins at `start`: so appending and `strip` leave MRENCLAVE alone."""
    patched = bytearray(content)
    for place in places:
        first, last = max(place.start - start, 0), min(place.stop - start, len(patched))
        if first < last:
            patched[first:last] = bytes(last - first)
    return bytes(patched)


def _thread_pages(start: int, entry: int) -> Iterator[Page]:
    """Stack, TCS and SSA of the thread whose first guard page is at `start`."""
    stack = start + PAGE
    for number in range(STACK_PAGES):
        yield Page(offset=stack + number * PAGE, flags=REG | READ | WRITE, content=_ZERO_PAGE)
    tcs = stack + (STACK_PAGES + 1) * PAGE
    ssa = tcs + PAGE
    fields = _TCS.pack(ssa, 0, SSA_PAGES, entry, stack, stack, _TCS_LIMIT, _TCS_LIMIT)
    yield Page(offset=tcs, flags=TCS, content=fields.ljust(PAGE, b"\0"))
    for number in range(SSA_PAGES):
        yield Page(offset=ssa + number * PAGE, flags=REG | READ | WRITE, content=_ZERO_PAGE)
