"""ELF files as fuzzed readers get them, and what reads and writes them."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from fuzz.scratch import scratch, stored, vectors

from sconify_tasks import elf
from sconify_tasks.errors import SconifyError
from sconify_tasks.sconified import CONFIG, SIGNATURE, read_sconified, write_sconified
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig

BINARY = MeasuredBinary(path="/a/b", sha256="ab" * 32, size=5, protected=True)
PROTECTED = MeasuredConfig(heap=4096, stack=4096, dlopen=0, fork=0, mprotect=0, threads=1, binary=BINARY).encode()


def libraries() -> list[bytes]:
    """A program and a library of this machine, as far as their headers reach, and what is left of them without a table."""
    program = Path(sys.executable).resolve().read_bytes()
    return [program[: 64 << 10], elf_of([]), elf_of([(b".sconify.elf", b"\x7fELF")])]


def elf_of(sections: list[tuple[bytes, bytes]]) -> bytes:
    """A small ELF file with a loader, a library and these sections."""
    import struct

    strings = b"\0libc.so.6\0/lib\0"
    loader = b"/lib64/ld.so\0"
    base = 64 + 56 * 3
    dynamic = struct.pack("<QQQQQQQQQQ", 1, 1, 29, 11, 5, 0x1000 + base + len(loader), 0x6FFFFFFB, 0x08000000, 0, 0)
    body = loader + strings + dynamic
    names = b"\0.shstrtab\0" + b"".join(name + b"\0" for name, _ in sections)
    data = b"".join(content for _, content in sections)
    start = base + len(body)
    table = start + len(names) + len(data)
    headers = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, start, len(names), 0, 0, 1, 0)
    at, name_at = start + len(names), 11
    for name, content in sections:
        headers += struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, at, len(content), 0, 0, 1, 0)
        at, name_at = at + len(content), name_at + len(name) + 1
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0x1000, 64, table, 0, 64, 56, 3, 64, 2 + len(sections), 1)

    def program(kind: int, flags: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, 0x1000 + offset, 0, size, size, 4096)

    programs = program(1, 6, 0, start) + program(3, 4, base, len(loader))
    programs += program(2, 6, base + len(loader) + len(strings), len(dynamic))
    return header + programs + body + names + data + headers


@cache
def sconified() -> bytes:
    runtime, out = stored(elf_of([]), "runtime"), scratch() / "sconified"
    write_sconified(runtime, out, {CONFIG: PROTECTED, SIGNATURE: vectors("sigstruct", "sigstruct")[0]})
    read_sconified(out)
    return out.read_bytes()


def run_elf(data: bytes) -> None:
    for read in (elf.inspect, elf.load_image, elf.sections):
        with suppress(SconifyError):
            read(data)


def run_write_sconified(data: bytes) -> None:
    """What is written on top of any runtime that is taken is read back, or refused for the table that the runtime had."""
    out = scratch() / "written"
    out.unlink(missing_ok=True)
    try:
        write_sconified(stored(data, "any-runtime"), out, {CONFIG: PROTECTED, SIGNATURE: vectors("sigstruct", "sigstruct")[0]})
    except SconifyError:
        assert not out.exists()
        assert not list(scratch().glob(".written.*"))
        raise
    read_sconified(out)
