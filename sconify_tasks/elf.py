"""What the pipeline asks of an ELF file. Images are hostile: every malformed file is a UsageError, none hangs or crashes.

Facts come from the program headers, as the kernel and the loader see the file. Section headers, which nothing checks at
run time, only tell whether there is a symbol table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from msgspec import Struct

from sconify_tasks.elf_file import (
    DT_FLAGS_1,
    DT_NEEDED,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DT_STRTAB,
    HEADER_SIZE,
    MAX_NAME,
    PT_INTERP,
    PT_LOAD,
    SHT_SYMTAB,
    ElfFile,
    ElfSection,
)
from sconify_tasks.elf_place import ElfPlace, opened
from sconify_tasks.errors import UsageError

# e_machine of the gABI; the first two are what images are made for, the others are named in messages.
_MACHINES = {62: "x86_64", 183: "aarch64", 21: "ppc64", 22: "s390x", 243: "riscv64", 258: "loongarch64"}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""OCI's names to ELF's."""

_MAGIC = b"\x7fELF"
_CLASS64, _LITTLE_ENDIAN = 2, 1
_X86_64 = b"\x3e\x00"
_DF_1_PIE = 0x08000000
_READ, _WRITE, _EXECUTE = 4, 2, 1
_GO_BUILDINFO = b"\xff Go buildinf:"
_GO_SEARCH = 32 << 20
# e_shoff, and e_shnum with e_shstrndx: they only say where the section header table lies.
_SECTION_TABLE = (range(0x28, 0x30), range(0x3C, 0x40))
_MAX_STRINGS = 1 << 20  # bytes of all names in a dynamic section: a table may be pointed into again and again
_STRINGS = (DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME)


class ForeignElfError(UsageError):
    """A proper ELF file of another class, byte order or machine; a loader would pass over it."""


class ElfFacts(Struct, frozen=True, kw_only=True):
    """A 64-bit little-endian executable or shared object.

    `machine` is `x86_64`, `aarch64`, or the name or number of another. `type` is `EXEC` or `DYN`. `static` means
    that no loader and no library takes part. `stripped` means that there is no symbol table.
    """

    bits: int
    machine: str
    type: str
    is_pie: bool
    interpreter: bytes
    needed: tuple[bytes, ...]
    rpath: bytes
    runpath: bytes
    soname: bytes
    static: bool
    is_go: bool
    stripped: bool


class LoadSegment(Struct, frozen=True, kw_only=True):
    """A PT_LOAD program header; its bytes are known to lie inside the file."""

    address: int
    memory_size: int
    offset: int
    file_size: int
    read: bool
    write: bool
    execute: bool


class LoadImage(Struct, frozen=True, kw_only=True):
    """What the kernel maps. `file_places` are the file's ranges that only say where something lies in the file.

    These are the section header table and the fields that lead to it, and offset and size in the file of every PT_LOAD:
    appending sections or `strip` changes them, and nothing in memory depends on them.
    """

    entry: int
    segments: tuple[LoadSegment, ...]
    section_table: range
    file_places: tuple[range, ...]

    def section_table_is_loaded(self) -> bool:
        """Whether bytes of the section header table lie in a segment."""
        table = self.section_table
        return any(
            max(table.start, segment.offset) < min(table.stop, segment.offset + segment.file_size) for segment in self.segments
        )


def inspect(source: ElfPlace, *, name: str = "the binary") -> ElfFacts:
    """Return the facts; UsageError for a script, a malformed file or no ELF, ForeignElfError for 32 bits or big-endian."""
    with _parsed(source, name) as elf:
        kind = _type(elf, name)
        loads = _loads(elf)
        strings, pie_flag = _dynamic(elf)
        interpreter = _interpreter(elf)
        needed = tuple(strings.get(DT_NEEDED, ()))
        soname = _last(strings, DT_SONAME)
        types = elf.section_types()
        return ElfFacts(
            bits=64,
            machine=_MACHINES.get(elf.machine, str(elf.machine)),
            type=kind,
            # libc.so.6 has an interpreter as well, so that it can be run; a soname tells it from a program.
            is_pie=kind == "DYN" and (pie_flag or (bool(interpreter) and not soname)),
            interpreter=interpreter,
            needed=needed,
            rpath=_last(strings, DT_RPATH),
            runpath=_last(strings, DT_RUNPATH),
            soname=soname,
            static=not interpreter and not needed,
            is_go=_is_go(elf, loads),
            # A table that is not there holds no symbols for anyone; the program may run all the same.
            stripped=types is None or SHT_SYMTAB not in types,
        )


def require_architecture(facts: ElfFacts, architecture: str, *, name: str = "the binary") -> None:
    """Raise UsageError unless the file is for this architecture, in OCI's spelling (`amd64`, `arm64`)."""
    if facts.machine != ARCHITECTURES.get(architecture):
        raise UsageError(
            f"{name} is built for {facts.machine}, and the image for {architecture}",
            hint="choose the binary that the image runs, or the image of the right platform",
        )


def load_image(source: ElfPlace, *, name: str = "the runtime") -> LoadImage:
    """Return the PT_LOAD headers that occupy memory, in the file's order; UsageError for a malformed file."""
    with _parsed(source, name) as elf:
        places = (*_SECTION_TABLE, elf.section_table, *_load_places(elf))
        return LoadImage(entry=elf.entry, segments=_loads(elf), section_table=elf.section_table, file_places=places)


def sections(source: ElfPlace, *, name: str = "the binary") -> tuple[ElfSection, ...]:
    """Every section of the section header table; UsageError for a malformed file."""
    with _parsed(source, name) as elf:
        return tuple(elf.sections())


@contextmanager
def _parsed(source: ElfPlace, name: str) -> Iterator[ElfFile]:
    with _open(source, name) as file:
        _identify(file, name)
        try:
            yield ElfFile(file)
        except ValueError as error:  # also of a name that is not UTF-8
            raise _malformed(name, str(error)[:80]) from error


def _open(source: ElfPlace, name: str) -> BinaryIO:
    try:
        return opened(source)
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}") from error


def _identify(file: BinaryIO, name: str) -> None:
    head = file.read(HEADER_SIZE)
    if head.startswith(b"#!"):
        line = head.split(b"\n", 1)[0].decode(errors="backslashreplace")
        raise UsageError(f"{name} is a script ({line})", hint="name its interpreter as the binary, with the script as argument")
    if not head.startswith(_MAGIC):
        raise UsageError(f"{name} is not an ELF file", hint="name the program's executable, not a file that it reads")
    if len(head) < HEADER_SIZE:
        raise _malformed(name, "it is truncated")
    if head[4] != _CLASS64 and head[18:20] == _X86_64:
        raise ForeignElfError(f"{name} is an x32 program (64-bit code with 32-bit pointers)", hint="use one for amd64")
    if head[4] != _CLASS64:
        raise ForeignElfError(f"{name} is a 32-bit program", hint="use a 64-bit image")
    if head[5] != _LITTLE_ENDIAN:
        raise ForeignElfError(f"{name} is a big-endian program", hint="use an image for amd64 or arm64")


def _malformed(name: str, reason: str) -> UsageError:
    return UsageError(f"{name} is a malformed ELF file: {reason}", hint="take the file from a proper build")


def _type(elf: ElfFile, name: str) -> str:
    if elf.type not in ("EXEC", "DYN"):
        raise UsageError(f"{name} is an ELF file that can't be run (type {elf.type})", hint="name a linked program")
    return elf.type


def _loads(elf: ElfFile) -> tuple[LoadSegment, ...]:
    loads = []
    for header in elf.of_type(PT_LOAD):
        if not header.memory_size:
            continue
        if header.file_size > header.memory_size or header.offset + header.file_size > elf.length:
            raise ValueError("a segment goes beyond the file")
        if header.address + header.memory_size >> 63:
            raise ValueError("a segment goes beyond the address space")
        loads.append(
            LoadSegment(
                address=header.address,
                memory_size=header.memory_size,
                offset=header.offset,
                file_size=header.file_size,
                read=bool(header.flags & _READ),
                write=bool(header.flags & _WRITE),
                execute=bool(header.flags & _EXECUTE),
            )
        )
    return tuple(loads)


def _load_places(elf: ElfFile) -> Iterator[range]:
    """Yield where p_offset and p_filesz of every PT_LOAD are."""
    for header in elf.of_type(PT_LOAD):
        yield range(header.place + 8, header.place + 16)
        yield range(header.place + 32, header.place + 40)


def _dynamic(elf: ElfFile) -> tuple[dict[int, list[bytes]], bool]:
    """The strings of the dynamic section by tag, and whether it says PIE."""
    tags = list(elf.tags())
    table = next((value for tag, value in tags if tag == DT_STRTAB), None)
    flags = next((value for tag, value in tags if tag == DT_FLAGS_1), 0)
    found: dict[int, list[bytes]] = {}
    size = 0
    for tag, value in tags:
        if tag in _STRINGS:
            if table is None:
                raise ValueError("its dynamic section has names and no string table")
            text = elf.string(elf.place_of(table) + value)
            size += len(text)
            if size > _MAX_STRINGS:
                raise ValueError("the names in its dynamic section are too long")
            found.setdefault(tag, []).append(text)
    return found, bool(flags & _DF_1_PIE)


def _last(strings: dict[int, list[bytes]], tag: int) -> bytes:
    """The loader takes the last one of a repeated tag."""
    return strings.get(tag, [b""])[-1]


def _interpreter(elf: ElfFile) -> bytes:
    for header in elf.of_type(PT_INTERP):
        if not 1 < header.file_size <= MAX_NAME:
            raise ValueError("the path of its interpreter is empty or too long")
        data = elf.at(header.offset, header.file_size)
        if not data.endswith(b"\0") or not data.startswith(b"/"):
            raise ValueError("the path of its interpreter is not an absolute path")
        return data.split(b"\0", 1)[0]
    return b""


def _is_go(elf: ElfFile, loads: tuple[LoadSegment, ...]) -> bool:
    """Look for Go's build info where `go version` looks in stripped files: in the writable segments."""
    left = _GO_SEARCH
    for load in loads:
        if load.write:
            data = elf.up_to(load.offset, min(load.file_size, left))
            if _GO_BUILDINFO in data:
                return True
            left -= len(data)
    return False
