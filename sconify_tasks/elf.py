"""What the pipeline asks of an ELF file. Images are hostile: every malformed file is a UsageError, none hangs or crashes.

Facts come from the program headers, as the kernel and the loader see the file. Section headers, which nothing checks at
run time, only tell whether there is a symbol table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sconify_tasks.bounded_stream import BoundedStream, BudgetError
from sconify_tasks.errors import UsageError

if TYPE_CHECKING:
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""OCI's names to ELF's."""

_MAGIC = b"\x7fELF"
_CLASS64, _LITTLE_ENDIAN = 2, 1
_MAX_HEADERS = 256
_MAX_NAME = 4096
_DF_1_PIE = 0x08000000
_READ, _WRITE, _EXECUTE = 4, 2, 1
_GO_BUILDINFO = b"\xff Go buildinf:"
_SECTION_HEADER = 64  # Elf64_Shdr, gABI
_LARGEST_TABLE = 0xFFFF * _SECTION_HEADER
_SYMBOLS = 2  # SHT_SYMTAB
_GO_SEARCH = 32 << 20
# e_shoff, e_shnum, e_shstrndx: without them pyelftools finds strings as the loader does, through the segments.
_SECTION_TABLE = (range(0x28, 0x30), range(0x3C, 0x40))
_TABLE_FIELDS = (range(0x28, 0x30), range(0x3A, 0x3C), range(0x3C, 0x3E))
_HEADER_SIZE = 64


class ForeignElfError(UsageError):
    """A proper ELF file of another class, byte order or machine; a loader would pass over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfFacts:
    """A 64-bit little-endian executable or shared object.

    `machine` is `x86_64`, `aarch64`, or pyelftools' name or number of another. `type` is `EXEC` or `DYN`. `static` means
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSegment:
    """A PT_LOAD program header; its bytes are known to lie inside the file."""

    address: int
    memory_size: int
    offset: int
    file_size: int
    read: bool
    write: bool
    execute: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadImage:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfSection:
    """Name and place of a section."""

    name: str
    type: str
    offset: int
    size: int


def inspect(source: bytes | Path, *, name: str = "the binary") -> ElfFacts:
    """Return the facts; UsageError for a script, a malformed file or no ELF, ForeignElfError for 32 bits or big-endian."""
    with _parsed(source, name, blanked=_SECTION_TABLE) as (elf, stream):
        kind = _type(elf, name)
        loads = _loads(elf, stream)
        tags = _dynamic(elf)
        interpreter = _interpreter(elf, stream)
        needed = tuple(tags.get("DT_NEEDED", ()))
        soname = _single(tags, "DT_SONAME")
        pie_flag = bool(tags.get("DT_FLAGS_1", (0,))[0] & _DF_1_PIE)
        machine = str(elf["e_machine"])
        return ElfFacts(
            bits=64,
            machine=MACHINES.get(machine, machine),
            type=kind,
            # libc.so.6 has an interpreter as well, so that it can be run; a soname tells it from a program.
            is_pie=kind == "DYN" and (pie_flag or (bool(interpreter) and not soname)),
            interpreter=interpreter,
            needed=needed,
            rpath=_single(tags, "DT_RPATH"),
            runpath=_single(tags, "DT_RUNPATH"),
            soname=soname,
            static=not interpreter and not needed,
            is_go=_is_go(stream, loads),
            stripped=_is_stripped(source),
        )


def require_architecture(facts: ElfFacts, architecture: str, *, name: str = "the binary") -> None:
    """Raise UsageError unless the file is for this architecture, in OCI's spelling (`amd64`, `arm64`)."""
    if facts.machine != ARCHITECTURES.get(architecture):
        raise UsageError(
            f"{name} is built for {facts.machine}, and the image for {architecture}",
            hint="choose the binary that the image runs, or the image of the right platform",
        )


def load_image(source: bytes | Path, *, name: str = "the runtime") -> LoadImage:
    """Return the PT_LOAD headers that occupy memory, in the file's order; UsageError for a malformed file."""
    with _parsed(source, name, blanked=_SECTION_TABLE) as (elf, stream):
        table = _section_table(source)
        places = (*_SECTION_TABLE, table, *_load_places(elf))
        return LoadImage(entry=int(elf["e_entry"]), segments=_loads(elf, stream), section_table=table, file_places=places)


def sections(source: bytes | Path, *, name: str = "the binary") -> tuple[ElfSection, ...]:
    """Every section of the section header table; UsageError for a malformed file."""
    with _parsed(source, name) as (elf, _):
        return tuple(
            ElfSection(
                name=section.name,
                type=str(section["sh_type"]),
                offset=section["sh_offset"],
                size=section["sh_size"],
            )
            for section in elf.iter_sections()
        )


@contextmanager
def _parsed(source: bytes | Path, name: str, *, blanked: tuple[range, ...] = ()) -> Iterator[tuple[ELFFile, BoundedStream]]:
    with io.BytesIO(source) if isinstance(source, bytes) else _open(source, name) as file:
        _identify(file, name)
        from elftools.elf.elffile import ELFFile

        try:
            stream = BoundedStream(file, blanked=blanked)
            elf = ELFFile(cast("BinaryIO", stream))
            _check_header_count(elf)
            yield elf, stream
        except UsageError:
            raise
        except BudgetError:
            raise _malformed(name, "reading it takes more than any proper file does") from None
        except Exception as error:  # pyelftools raises whatever its bytes lead to: KeyError, Overflow, Assertion
            raise _malformed(name, str(error)[:80] or type(error).__name__) from error


def _check_header_count(elf: ELFFile) -> None:
    if elf["e_phnum"] > _MAX_HEADERS:
        raise ValueError("it has too many program headers")


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}") from error


def _identify(file: BinaryIO, name: str) -> None:
    head = file.read(_HEADER_SIZE)
    if head.startswith(b"#!"):
        line = head.split(b"\n", 1)[0].decode(errors="backslashreplace")
        raise UsageError(f"{name} is a script ({line})", hint="name its interpreter as the binary, with the script as argument")
    if not head.startswith(_MAGIC):
        raise UsageError(f"{name} is not an ELF file", hint="name the program's executable, not a file that it reads")
    if len(head) < _HEADER_SIZE:
        raise _malformed(name, "it is truncated")
    if head[4] != _CLASS64:
        raise ForeignElfError(f"{name} is a 32-bit program", hint="use a 64-bit image")
    if head[5] != _LITTLE_ENDIAN:
        raise ForeignElfError(f"{name} is a big-endian program", hint="use an image for amd64 or arm64")


def _malformed(name: str, reason: str) -> UsageError:
    return UsageError(f"{name} is a malformed ELF file: {reason}", hint="take the file from a proper build")


def _type(elf: ELFFile, name: str) -> str:
    kind = str(elf["e_type"]).removeprefix("ET_")
    if kind not in ("EXEC", "DYN"):
        raise UsageError(f"{name} is an ELF file that can't be run (type {kind})", hint="name a linked program")
    return kind


def _loads(elf: ELFFile, stream: BoundedStream) -> tuple[LoadSegment, ...]:
    length = stream.seek(0, io.SEEK_END)
    loads = []
    for segment in elf.iter_segments(type="PT_LOAD"):
        if not segment["p_memsz"]:
            continue
        if segment["p_filesz"] > segment["p_memsz"] or segment["p_offset"] + segment["p_filesz"] > length:
            raise ValueError("a segment goes beyond the file")
        if segment["p_vaddr"] + segment["p_memsz"] >> 63:
            raise ValueError("a segment goes beyond the address space")
        flags = segment["p_flags"]
        loads.append(
            LoadSegment(
                address=segment["p_vaddr"],
                memory_size=segment["p_memsz"],
                offset=segment["p_offset"],
                file_size=segment["p_filesz"],
                read=bool(flags & _READ),
                write=bool(flags & _WRITE),
                execute=bool(flags & _EXECUTE),
            )
        )
    return tuple(loads)


def _section_table(source: bytes | Path) -> range:
    """Read where the table is from the file itself, as the parser is shown a header without it."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        header = file.read(_HEADER_SIZE)
    table, entry_size, count = (int.from_bytes(header[field.start : field.stop], "little") for field in _TABLE_FIELDS)
    return range(table, table + entry_size * count)


def _load_places(elf: ELFFile) -> Iterator[range]:
    """Yield where p_offset and p_filesz of every PT_LOAD are."""
    for index, segment in enumerate(elf.iter_segments()):
        if segment["p_type"] == "PT_LOAD":
            start = elf["e_phoff"] + index * elf["e_phentsize"]
            yield range(start + 8, start + 16)
            yield range(start + 32, start + 40)


def _dynamic(elf: ELFFile) -> dict[str, list[Any]]:
    """Tag -> values: bytes for the tags that are strings, integers for the others."""
    strings: dict[str, Callable[[Any], str]] = {
        "DT_NEEDED": lambda tag: tag.needed,
        "DT_RPATH": lambda tag: tag.rpath,
        "DT_RUNPATH": lambda tag: tag.runpath,
        "DT_SONAME": lambda tag: tag.soname,
    }
    found: dict[str, list[Any]] = {}
    for segment in elf.iter_segments(type="PT_DYNAMIC"):
        for tag in cast("DynamicSegment", segment).iter_tags():
            name = str(tag.entry.d_tag)
            take = strings.get(name)
            value = take(tag).encode() if take else tag.entry.d_val
            if take and not 0 < len(value) <= _MAX_NAME:
                raise ValueError("a name in its dynamic section is empty or too long")
            found.setdefault(name, []).append(value)
        break
    return found


def _single(tags: dict[str, list[Any]], name: str) -> bytes:
    values = tags.get(name, [b""])
    # The loader takes the last one of a repeated tag.
    return bytes(values[-1])


def _interpreter(elf: ELFFile, stream: BoundedStream) -> bytes:
    for segment in elf.iter_segments(type="PT_INTERP"):
        stream.seek(segment["p_offset"])
        if not 1 < segment["p_filesz"] <= _MAX_NAME:
            raise ValueError("the path of its interpreter is empty or too long")
        data = stream.read(segment["p_filesz"])
        if not data.endswith(b"\0") or not data.startswith(b"/"):
            raise ValueError("the path of its interpreter is not an absolute path")
        return data.split(b"\0", 1)[0]
    return b""


def _is_go(stream: BoundedStream, loads: tuple[LoadSegment, ...]) -> bool:
    """Look for Go's build info where `go version` looks in stripped files: in the writable segments."""
    left = _GO_SEARCH
    for load in loads:
        if load.write:
            stream.seek(load.offset)
            data = stream.read(min(load.file_size, left))
            if _GO_BUILDINFO in data:
                return True
            left -= len(data)
    return False


def _is_stripped(source: bytes | Path) -> bool:
    """Look at the sections' types alone: the parser would take longer for their names than for everything else."""
    table = _section_table(source)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        if table.stop > file.seek(0, io.SEEK_END):
            return True  # no symbols for anyone; the program may run all the same
        file.seek(table.start)
        headers = file.read(min(len(table), _LARGEST_TABLE))
    types = (int.from_bytes(headers[at + 4 : at + 8], "little") for at in range(0, len(headers), _SECTION_HEADER))
    return _SYMBOLS not in types
