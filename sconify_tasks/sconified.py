"""The sconified ELF: the runtime with config, signature and payload appended as sections (docs/formats.md section 5).

Nothing of the runtime's segments changes, so that MRENCLAVE does not depend on what was appended, and the payload is
copied as it lies: half a gigabyte costs no more than copying it.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from sconify_tasks.elf import load_image, sections
from sconify_tasks.elf_file import ElfSection
from sconify_tasks.elf_place import FilePart, opened
from sconify_tasks.errors import StoreError, UsageError
from sconify_tasks.kernel_copy import copy_range
from sconify_tasks.sgx.measured_config import MeasuredConfig, decode_config
from sconify_tasks.sgx.measurement import EnclaveError
from sconify_tasks.sgx.sigstruct import Sigstruct, parse_sigstruct

CONFIG, SIGNATURE, ELF, FILE_SYSTEM = ".sconify.config", ".sconify.sig", ".sconify.elf", ".sconify.fs"
ORDER = (CONFIG, SIGNATURE, ELF, FILE_SYSTEM)
"""The one order of the sections, so that the same content gives the same bytes."""

ALIGNMENT = 4096
_MAX_CONFIG = 1 << 16
_HEADER_SIZE = 64
# Of the ELF header: e_shoff, and e_shentsize, e_shnum, e_shstrndx.
_TABLE_OFFSET, _TABLE_OFFSET_AT = struct.Struct("<Q"), 0x28
_TABLE_SHAPE, _TABLE_SHAPE_AT = struct.Struct("<HHH"), 0x3A
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _STRTAB = 1, 3
_TABLE_ALIGNMENT = 8
_NULL_HEADER = bytes(_SHDR.size)
_MAX_SECTIONS = 1024
_MAX_NAMES = 1 << 20


class Place(Struct, frozen=True, kw_only=True):
    """Where a section lies in the file."""

    offset: int
    size: int


class Sconified(Struct, frozen=True, kw_only=True):
    """What a sconified ELF carries. The signature is parsed, not verified."""

    config: MeasuredConfig
    sigstruct: Sigstruct
    sections: Mapping[str, Place]


class Written(Protocol):
    """A section that is made while it is written, to an output that it may seek in."""

    @property
    def size(self) -> int:
        """Known before."""

    def write_to(self, out: BinaryIO) -> None:
        """Write `size` bytes from where `out` stands, and leave it behind them."""


Content = bytes | Path | Written


class _Plan(Struct, frozen=True, kw_only=True):
    """Where everything goes: known before the first byte is written."""

    header: bytearray
    old_table: range
    runtime_size: int
    places: Mapping[str, Place]
    names: bytearray
    table: bytes
    table_offset: int


def sconified_size(runtime: Path, contents: Mapping[str, Content]) -> int:
    """Return the length of what `write_sconified` writes."""
    with runtime.open("rb") as source:
        plan = _plan(source, runtime, _ordered(contents))
    return plan.table_offset + len(plan.table)


def section_offset(runtime: Path, contents: Mapping[str, Content], name: str) -> int:
    """Return where in the ELF a section will lie."""
    with runtime.open("rb") as source:
        return _plan(source, runtime, _ordered(contents)).places[name].offset


def write_sconified(runtime: Path, out: Path | BinaryIO, contents: Mapping[str, Content]) -> None:
    """Append `contents` (by section name, in any order) to `runtime`; a path is written whole or not at all, mode 0755."""
    ordered = _ordered(contents)
    if not isinstance(out, Path):
        _write(runtime, out, ordered)
        return
    try:
        with _atomic(out) as file:
            _write(runtime, file, ordered)
    except OSError as error:
        raise StoreError(f"{out} can't be written: {error}", hint="look at the disk, and at who may write there") from error


def read_sconified(path: Path | FilePart) -> Sconified:
    """Find and parse the sections; EnclaveError for anything but one proper sconified ELF."""
    places = _places(path)
    with opened(path) as file:
        config = decode_config(_content(file, places, CONFIG))
        sigstruct = parse_sigstruct(_content(file, places, SIGNATURE))
    if load_image(path, name=path.name).section_table_is_loaded():
        # It is not measured: behind it, zeros of a segment could be given another value without changing MRENCLAVE.
        raise EnclaveError("section", f"{path.name}: the section header table lies in a segment")
    payload = places.get(ELF)
    if (payload is None) is not config.binary.protected or (payload and payload.size != config.binary.size):
        raise EnclaveError("payload", f"{path.name}: the section {ELF} is not as the measured config says")
    if (FILE_SYSTEM in places) is not (config.binary_fs is not None):
        raise EnclaveError("payload", f"{path.name}: the section {FILE_SYSTEM} is not as the measured config says")
    return Sconified(config=config, sigstruct=sigstruct, sections=places)


def _places(path: Path | FilePart) -> dict[str, Place]:
    found: dict[str, Place] = {}
    length = path.size if isinstance(path, FilePart) else path.stat().st_size
    for section in sections(path, name=path.name):
        if not section.name.startswith(".sconify."):
            continue
        if section.name not in ORDER or section.name in found or section.type != "SHT_PROGBITS":
            raise EnclaveError("section", f"{path.name}: unexpected section {section.name[:40]}")
        _check_place(path.name, length, section)
        found[section.name] = Place(offset=section.offset, size=section.size)
    return found


def _check_place(name: str, length: int, section: ElfSection) -> None:
    if section.offset % ALIGNMENT or section.offset + section.size > length:
        raise EnclaveError("section", f"{name}: the section {section.name} is not aligned, or goes beyond the file")


def _content(file: BinaryIO, places: Mapping[str, Place], name: str) -> bytes:
    place = places.get(name)
    if place is None:
        raise EnclaveError("section", f"the file has no section {name}", hint="it is no sconified binary: sconify it first")
    if place.size > _MAX_CONFIG:
        raise EnclaveError("section", f"the section {name} has {place.size} bytes")
    file.seek(place.offset)
    return file.read(place.size)


def _ordered(contents: Mapping[str, Content]) -> list[tuple[str, Content]]:
    unknown = contents.keys() - set(ORDER)
    if unknown:
        raise ValueError(f"not sections of a sconified ELF: {sorted(unknown)}")
    return [(name, contents[name]) for name in ORDER if name in contents]


def _plan(source: BinaryIO, runtime: Path, contents: list[tuple[str, Content]]) -> _Plan:
    header, old_table = _header(source, runtime)
    headers, names, index = _own_sections(source, header, runtime)
    end = runtime_size = os.fstat(source.fileno()).st_size
    appended, places = [], {}
    for name, content in contents:
        place = places[name] = Place(offset=_aligned(end, ALIGNMENT), size=_size(content))
        appended.append(_SHDR.pack(_name(names, name), _PROGBITS, 0, 0, place.offset, place.size, 0, 0, ALIGNMENT, 0))
        end = place.offset + place.size
    headers[index] = _SHDR.pack(_SHDR.unpack(headers[index])[0], _STRTAB, 0, 0, end, len(names), 0, 0, 1, 0)
    table_offset = _aligned(end + len(names), _TABLE_ALIGNMENT)
    _TABLE_OFFSET.pack_into(header, _TABLE_OFFSET_AT, table_offset)
    _TABLE_SHAPE.pack_into(header, _TABLE_SHAPE_AT, _SHDR.size, len(headers) + len(appended), index)
    return _Plan(
        header=header,
        old_table=old_table,
        runtime_size=runtime_size,
        places=places,
        names=names,
        table=b"".join((*headers, *appended)),
        table_offset=table_offset,
    )


def _write(runtime: Path, out: BinaryIO, contents: list[tuple[str, Content]]) -> None:
    """Write front to back: every place is known before the first byte, so `out` may be a pipe or a hash."""
    with runtime.open("rb") as source:
        plan = _plan(source, runtime, contents)
        _copy_runtime(source, out, plan.header, plan.old_table, plan.runtime_size)
    end = plan.runtime_size
    for name, content in contents:
        place = plan.places[name]
        out.write(bytes(place.offset - end))
        _append(out, content, place.size)
        end = place.offset + place.size
    out.write(plan.names + bytes(plan.table_offset - end - len(plan.names)))
    out.write(plan.table)


def _copy_runtime(source: BinaryIO, out: BinaryIO, header: bytearray, old_table: range, size: int) -> None:
    """Copy the runtime under its new header; zeros take the place of its old section header table.

    Linkers put that table anywhere, Go's into the first segment. It is not measured, and `strip` would drop it.
    """
    out.write(header)
    source.seek(len(header))
    if len(header) <= old_table.start < old_table.stop <= size:
        copy_range(source, out, old_table.start - len(header))
        out.write(bytes(len(old_table)))
        source.seek(old_table.stop)
    copy_range(source, out, size - source.tell())


def _header(source: BinaryIO, runtime: Path) -> tuple[bytearray, range]:
    """Return the ELF header, and where the section header table lies, of a file that is known to be a proper ELF."""
    image = load_image(runtime, name=f"the runtime {runtime.name}")
    return bytearray(source.read(_HEADER_SIZE)), image.section_table


def _own_sections(source: BinaryIO, header: bytearray, runtime: Path) -> tuple[list[bytes], bytearray, int]:
    """Return the runtime's own section headers, section names, and which section holds the names.

    A runtime without a section header table gets the two sections that every table has.
    """
    (offset,) = _TABLE_OFFSET.unpack_from(header, _TABLE_OFFSET_AT)
    entry_size, count, names_index = _TABLE_SHAPE.unpack_from(header, _TABLE_SHAPE_AT)
    if not offset or not count:
        names = bytearray(b"\0")
        return [_NULL_HEADER, _SHDR.pack(_name(names, ".shstrtab"), _STRTAB, 0, 0, 0, 0, 0, 0, 1, 0)], names, 1
    if entry_size != _SHDR.size or count > _MAX_SECTIONS or names_index >= count:
        raise UsageError(f"the runtime {runtime.name} has an unusual section header table", hint="build the runtime again")
    table = _read_at(source, offset, count * _SHDR.size, runtime)
    headers = [table[position : position + _SHDR.size] for position in range(0, len(table), _SHDR.size)]
    _, _, _, _, names_offset, names_size, *_ = _SHDR.unpack(headers[names_index])
    if names_size > _MAX_NAMES:
        raise UsageError(f"the runtime {runtime.name} has unusually many section names", hint="build the runtime again")
    return headers, bytearray(_read_at(source, names_offset, names_size, runtime)), names_index


def _read_at(source: BinaryIO, offset: int, size: int, runtime: Path) -> bytes:
    """Read a part that the file says it has."""
    if offset + size > os.fstat(source.fileno()).st_size:  # an offset may also be larger than any that can be sought
        raise UsageError(f"the runtime {runtime.name} is truncated", hint="build the runtime again")
    source.seek(offset)
    return source.read(size)


def _name(names: bytearray, name: str) -> int:
    offset = len(names)
    names += name.encode() + b"\0"
    return offset


def _aligned(position: int, alignment: int) -> int:
    return position + -position % alignment


def _size(content: Content) -> int:
    if isinstance(content, bytes):
        return len(content)
    return content.stat().st_size if isinstance(content, Path) else content.size


def _append(out: BinaryIO, content: Content, size: int) -> None:
    if isinstance(content, bytes):
        out.write(content)
    elif isinstance(content, Path):
        with content.open("rb") as source:
            copy_range(source, out, size)
    else:
        content.write_to(out)


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that appears under its name only when it is complete."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            yield file
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
