"""The headers of a 64-bit little-endian ELF file (System V gABI), read where they lie. Every count and length is bounded.

What is read is a few hundred bytes of a file of any size. ValueError tells what is wrong with it; nothing else is raised.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

HEADER_SIZE = 64
MAX_HEADERS = 256
MAX_NAME = 4096
MAX_TAGS = 32_768
MAX_SECTION_NAME = 255
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SONAME, DT_RPATH, DT_RUNPATH, DT_FLAGS_1 = 0, 1, 5, 14, 15, 29, 0x6FFFFFFB
SHT_SYMTAB = 2

_FILE_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQ8xQQ8x")
_SECTION_HEADER = struct.Struct("<II8x8xQQ4x4x8x8x")
_TAG = struct.Struct("<QQ")
_TAGS_AT_ONCE = 64
_NAMES = 1 << 20
_TYPES = {0: "NONE", 1: "REL", 2: "EXEC", 3: "DYN", 4: "CORE"}
# What our own files have, and what tells a reader of messages something.
_SECTION_TYPES = {0: "NULL", 1: "PROGBITS", 2: "SYMTAB", 3: "STRTAB", 4: "RELA", 6: "DYNAMIC", 7: "NOTE", 8: "NOBITS"}


class ProgramHeader(Struct, frozen=True, kw_only=True):
    """Elf64_Phdr. `place` is where it lies in the file."""

    place: int
    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class ElfSection(Struct, frozen=True, kw_only=True):
    """Name, type (`SHT_…`, or its number) and place of a section."""

    name: str
    type: str
    offset: int
    size: int


class ElfFile:
    """One file, by its program headers. `length` is the file's."""

    __slots__ = ("_section_size", "_stream", "entry", "headers", "length", "machine", "names_index", "section_table", "type")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.length = stream.seek(0, io.SEEK_END)
        kind, self.machine, _, self.entry, table, sections, *rest = _FILE_HEADER.unpack(self.at(0, HEADER_SIZE))
        _, _, entry_size, count, self._section_size, section_count, self.names_index = rest
        self.type = _TYPES.get(kind, str(kind))
        self.section_table = range(sections, sections + self._section_size * section_count)
        if count > MAX_HEADERS:
            raise ValueError("it has too many program headers")
        if count and entry_size != _PROGRAM_HEADER.size:
            raise ValueError(f"its program headers have {entry_size} bytes each")
        data = self.at(table, count * _PROGRAM_HEADER.size)
        self.headers = tuple(
            ProgramHeader(
                place=table + number * _PROGRAM_HEADER.size,
                type=type_,
                flags=flags,
                offset=offset,
                address=address,
                file_size=file_size,
                memory_size=memory_size,
            )
            for number, (type_, flags, offset, address, file_size, memory_size) in enumerate(_PROGRAM_HEADER.iter_unpack(data))
        )

    def at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`."""
        data = self.up_to(offset, length)
        if len(data) != length:
            raise ValueError("it is truncated")
        return data

    def up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes at `offset`: fewer where the file ends."""
        length = min(length, self.length - offset)
        if length <= 0:
            return b""
        self._stream.seek(offset)
        return self._stream.read(length)

    def of_type(self, type_: int) -> Iterator[ProgramHeader]:
        """The program headers of one type."""
        return (header for header in self.headers if header.type == type_)

    def tags(self) -> Iterator[tuple[int, int]]:
        """The dynamic section's tags and values, up to its end, which must come."""
        for header in self.of_type(PT_DYNAMIC):
            for start in range(0, MAX_TAGS, _TAGS_AT_ONCE):
                data = self.up_to(header.offset + start * _TAG.size, _TAGS_AT_ONCE * _TAG.size)
                for tag, value in _TAG.iter_unpack(data[: len(data) - len(data) % _TAG.size]):
                    if tag == DT_NULL:
                        return
                    yield tag, value
                if len(data) < _TAGS_AT_ONCE * _TAG.size:
                    break
            raise ValueError("its dynamic section has no end")

    def place_of(self, address: int) -> int:
        """Offset in the file of what is mapped at `address`."""
        for header in self.of_type(PT_LOAD):
            if header.address <= address < header.address + header.file_size:
                return header.offset + address - header.address
        raise ValueError("an address in its dynamic section is not mapped from the file")

    def string(self, offset: int) -> bytes:
        """The string that begins at `offset`; not empty, UTF-8, at most MAX_NAME bytes."""
        value, end, _ = self.up_to(offset, MAX_NAME + 1).partition(b"\0")
        if not value or not end:
            raise ValueError("a name in its dynamic section is empty or too long")
        value.decode()
        return value

    def section_types(self) -> Iterator[int] | None:
        """The types of all sections; None where the table is not in the file."""
        table = self.section_table
        if table.stop > self.length or (table and self._section_size != _SECTION_HEADER.size):
            return None
        return (header[1] for header in _SECTION_HEADER.iter_unpack(self.at(table.start, len(table))))

    def sections(self) -> Iterator[ElfSection]:
        """Every section of the table, with its name."""
        table = self.section_table
        if not table:
            return
        if self._section_size != _SECTION_HEADER.size:  # or a table of 65535 headers of 65535 bytes would be read
            raise ValueError(f"its section headers have {self._section_size} bytes each")
        headers = list(_SECTION_HEADER.iter_unpack(self.at(table.start, len(table))))
        if self.names_index >= len(headers):
            raise ValueError("its sections have no names")
        _, _, start, length = headers[self.names_index]
        names = self.at(start, min(length, _NAMES))
        for name, type_, offset, length in headers:
            if name >= len(names):
                raise ValueError("the name of a section lies outside of the names")
            text = names[name : name + MAX_SECTION_NAME + 1].split(b"\0", 1)[0].decode()
            if len(text) > MAX_SECTION_NAME:
                raise ValueError("the name of a section is too long")
            yield ElfSection(name=text, type=_section_type(type_), offset=offset, size=length)


def _section_type(number: int) -> str:
    return f"SHT_{_SECTION_TYPES[number]}" if number in _SECTION_TYPES else str(number)
