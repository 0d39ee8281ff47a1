"""The enclave's layout: which pages with which content and permissions (docs/formats.md section 6).

Cost follows the runtime's segments and the number of threads. Heap, stacks and payload are not measured page by page:
the config page names them, and what is in the payload is authenticated when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import BinaryIO

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

_TCS = Struct("<16xQIIQ8xQQII")
_TCS_LIMIT = 0xFFF
_E_SHOFF, _E_SHNUM, _E_SHSTRNDX = slice(0x28, 0x30), slice(0x3C, 0x3E), slice(0x3E, 0x40)
_ELF_HEADER = 64
_ZERO_PAGE = bytes(PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One measured page: offset from BASE, SECINFO flags, 4096 bytes."""

    offset: int
    flags: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One PT_LOAD in pages relative to BASE, with where its bytes lie in the file."""

    start: int
    end: int
    flags: int
    lead: int
    file_offset: int
    file_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything ECREATE and EADD need, in the order of the format."""

    segments: tuple[Segment, ...]
    entry: int
    config_offset: int
    config: bytes
    threads_offset: int
    threads: int
    size: int

    def pages(self, runtime: bytes | Path) -> Iterator[Page]:
        """Yield every measured page, in order. `runtime` is the ELF that the layout was made from, or its sconified form."""
        with _opened(runtime) as file:
            for segment in self.segments:
                yield from _segment_pages(file, segment)
        for position in range(0, len(self.config), PAGE):
            content = self.config[position : position + PAGE]
            yield Page(offset=self.config_offset + position, flags=REG | READ, content=content)
        for number in range(self.threads):
            yield from _thread_pages(self.threads_offset + number * THREAD_PAGES * PAGE, self.entry)


def layout(runtime: bytes | Path, config: MeasuredConfig) -> Layout:
    """Lay out the enclave of a runtime ELF (plain or sconified); EnclaveError where it can't be one."""
    base, entry, segments = _load_segments(runtime)
    encoded = config.encode()
    config_offset = max(segment.end for segment in segments)
    threads_offset = config_offset + len(encoded)
    end = threads_offset + config.threads * THREAD_PAGES * PAGE
    end += config.heap + config.threads * max(0, config.stack - STACK_PAGES * PAGE)
    if not 0 <= entry - base < config_offset:
        raise EnclaveError("entry", "the entry point of the runtime lies outside of its segments")
    return Layout(
        segments=segments,
        entry=entry - base,
        config_offset=config_offset,
        config=encoded,
        threads_offset=threads_offset,
        threads=config.threads,
        size=max(MIN_SIZE, 1 << (end - 1).bit_length()),
    )


def _opened(runtime: bytes | Path) -> nullcontext[BinaryIO] | BinaryIO:
    import io

    return nullcontext(io.BytesIO(runtime)) if isinstance(runtime, bytes) else runtime.open("rb")


def _load_segments(runtime: bytes | Path) -> tuple[int, int, tuple[Segment, ...]]:
    """Return BASE, entry point, and the segments relative to BASE in program-header order."""
    from sconify_tasks.elf import load_segments

    entry, headers = load_segments(runtime)
    if not headers:
        raise EnclaveError("segments", "the runtime has no loadable segment")
    base = min(header.address for header in headers) // PAGE * PAGE
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
    ordered = sorted(segments, key=lambda segment: segment.start)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            raise EnclaveError("overlap", "two segments of the runtime share a page")
    if ordered[-1].end > MAX_RUNTIME:
        raise EnclaveError("segments", "the segments of the runtime span more than a runtime can")
    return base, entry, segments


def _segment_pages(file: BinaryIO, segment: Segment) -> Iterator[Page]:
    file.seek(segment.file_offset)
    content = file.read(segment.file_size)
    if len(content) != segment.file_size:
        raise EnclaveError("truncated", "the runtime ends inside a segment")
    content = bytes(segment.lead) + _without_section_table(content, segment.file_offset)
    for offset in range(segment.start, segment.end, PAGE):
        position = offset - segment.start
        page = content[position : position + PAGE]
        yield Page(offset=offset, flags=segment.flags, content=page.ljust(PAGE, b"\0") if page else _ZERO_PAGE)


def _without_section_table(content: bytes, file_offset: int) -> bytes:
    """Zero the three fields of the ELF header that appending sections changes, so that it leaves MRENCLAVE alone."""
    if file_offset >= _ELF_HEADER:
        return content
    header = bytearray(_ELF_HEADER)
    header[file_offset:] = content[: _ELF_HEADER - file_offset].ljust(_ELF_HEADER - file_offset, b"\0")
    for field in (_E_SHOFF, _E_SHNUM, _E_SHSTRNDX):
        header[field] = bytes(field.stop - field.start)
    patched = bytes(header[file_offset:]) + content[_ELF_HEADER - file_offset :]
    return patched[: len(content)]


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
