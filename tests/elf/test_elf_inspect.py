"""ELF facts: of real programs, and of bytes that want to break the parser."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors.make import elf

from sconify_tasks.elf import ForeignElfError, inspect, load_image, require_architecture, sections
from sconify_tasks.errors import UsageError

MAIN = "int main(void) { return 0; }"
LIBRARY = "int answer(void) { return 42; }"


@pytest.fixture(scope="module")
def shared(compile_c):
    return compile_c(LIBRARY, "-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libanswer.so.1", "-Wl,-rpath,/opt/lib")


@pytest.fixture(scope="module")
def program(compile_c):
    return compile_c(MAIN, "-pie", "-fPIE", "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib")


def test_a_pie_with_an_rpath(program):
    facts = inspect(program)
    assert (facts.bits, facts.type, facts.is_pie, facts.static) == (64, "DYN", True, False)
    assert facts.interpreter.startswith(b"/lib")
    assert facts.needed == (b"libc.so.6",)
    assert (facts.rpath, facts.runpath, facts.soname) == (b"$ORIGIN/../lib", b"", b"")
    assert not facts.is_go
    assert not facts.stripped


def test_a_shared_object_with_a_runpath(shared):
    facts = inspect(shared)
    assert (facts.type, facts.is_pie, facts.static, facts.interpreter) == ("DYN", False, True, b"")
    assert (facts.soname, facts.rpath, facts.runpath) == (b"libanswer.so.1", b"", b"/opt/lib")


def test_a_fixed_and_stripped_program(compile_c):
    facts = inspect(compile_c(MAIN, "-no-pie", "-s"))
    assert (facts.type, facts.is_pie, facts.stripped) == ("EXEC", False, True)


def test_a_static_pie(compile_c):
    facts = inspect(compile_c("void _start(void) {}", "-static-pie", "-nostdlib"))
    assert (facts.type, facts.is_pie, facts.static) == ("DYN", True, True)


def test_a_static_go_program(go_program):
    facts = inspect(go_program)
    assert (facts.static, facts.is_go, facts.stripped, facts.type) == (True, True, True, "EXEC")


def test_bytes_and_a_path_give_the_same_facts(program):
    assert inspect(program.read_bytes()) == inspect(program)


def test_facts_need_no_section_headers(program):
    data = bytearray(program.read_bytes())
    data[0x28:0x30] = bytes(8)
    data[0x3C:0x40] = bytes(4)
    facts = inspect(bytes(data))
    assert (facts.needed, facts.rpath, facts.stripped) == ((b"libc.so.6",), b"$ORIGIN/../lib", True)


def test_section_headers_that_lie_change_no_fact(program):
    data = bytearray(program.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 0x28)
    data[table:] = b"\xff" * (len(data) - table)
    facts = inspect(bytes(data))
    assert (facts.needed, facts.rpath) == ((b"libc.so.6",), b"$ORIGIN/../lib")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an ELF file"),
        (b"MZ\x90\0", "is not an ELF file"),
        (b"#!/bin/sh -e\necho\n", r"is a script \(#!/bin/sh -e\)"),
        (b"\x7fELF", "truncated"),
        (b"\x7fELF\2\1\1" + bytes(50), "truncated"),
        (b"\x7fELF\1\1\1" + bytes(60), "is a 32-bit program"),
        (b"\x7fELF\2\2\1" + bytes(60), "is a big-endian program"),
    ],
)
def test_what_is_no_program_gets_its_own_answer(data, message):
    with pytest.raises(UsageError, match=message) as refusal:
        inspect(data, name="the binary /app/x")
    assert refusal.value.message.startswith("the binary /app/x ")
    assert refusal.value.hint


def test_an_object_file_is_not_a_program(compile_c):
    with pytest.raises(UsageError, match="can't be run"):
        inspect(compile_c(MAIN, "-c"))


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        inspect(tmp_path / "absent")


def test_a_program_for_another_machine_is_named(program):
    data = bytearray(program.read_bytes())
    data[18:20] = struct.pack("<H", 183)
    facts = inspect(bytes(data))
    assert facts.machine == "aarch64"
    require_architecture(facts, "arm64")
    with pytest.raises(UsageError, match="built for aarch64, and the image for amd64"):
        require_architecture(facts, "amd64")


def test_an_unknown_machine_is_a_fact_and_no_crash(program):
    data = bytearray(program.read_bytes())
    data[18:20] = struct.pack("<H", 0xBEEF)
    facts = inspect(bytes(data))
    with pytest.raises(UsageError, match="built for"):
        require_architecture(facts, "amd64")


def hostile(**fields):
    """A header with one dynamic segment, some of its fields replaced."""
    places = {
        "phoff": (32, "Q"),
        "shoff": (40, "Q"),
        "phentsize": (54, "H"),
        "phnum": (56, "H"),
        "shnum": (60, "H"),
        "shstrndx": (62, "H"),
    }
    data = bytearray(elf([(6, 0, 0, 4096, 4096)], entry=0, length=4096))
    for name, value in fields.items():
        place, letter = places[name]
        struct.pack_into("<" + letter, data, place, value)
    return data


def dynamic(tags, size=8192):
    """A file whose dynamic segment holds these tags."""
    data = bytearray(size)
    struct.pack_into("<16sHHIQQQIHHHHHH", data, 0, b"\x7fELF\2\1\1" + bytes(9), 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    struct.pack_into("<IIQQQQQQ", data, 64, 1, 6, 0, 0, 0, size, size, 4096)
    struct.pack_into("<IIQQQQQQ", data, 120, 2, 6, 512, 512, 512, 16 * len(tags), 16 * len(tags), 8)
    for number, (tag, value) in enumerate(tags):
        struct.pack_into("<QQ", data, 512 + 16 * number, tag, value)
    data[4096 : 4096 + 5] = b"\0lib\0"
    return bytes(data)


NEEDED, STRTAB, NULL = 1, 5, 0


def test_a_hand_made_dynamic_segment_is_read():
    assert inspect(dynamic([(NEEDED, 1), (STRTAB, 4096), (NULL, 0)])).needed == (b"lib",)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes(hostile(phnum=0xFFFF)), id="65535 program headers"),
        pytest.param(bytes(hostile(phnum=0xFFFE)), id="65534 program headers"),
        pytest.param(bytes(hostile(phoff=1 << 63)), id="program headers beyond everything"),
        pytest.param(bytes(hostile(phentsize=0)), id="program headers of no size"),
        pytest.param(dynamic([(NEEDED, 1), (STRTAB, 1 << 60), (NULL, 0)]), id="strings beyond the file"),
        pytest.param(dynamic([(NEEDED, 1 << 63), (STRTAB, 4096), (NULL, 0)]), id="a name beyond the file"),
        pytest.param(dynamic([(NEEDED, 0), (STRTAB, 4096), (NULL, 0)]), id="an empty name"),
        pytest.param(dynamic([(NEEDED, 1), (NULL, 0)]), id="no string table"),
        pytest.param(
            dynamic([(NEEDED, 1), (STRTAB, 4096), (NULL, 0)]).replace(b"lib\0", b"\xff\xfe\xfd\0"), id="a name not UTF-8"
        ),
        pytest.param(dynamic([(NEEDED, 1), (STRTAB, 4096), (NULL, 0)])[:4098] + b"x" * 9000, id="a name of 9000 bytes"),
        pytest.param(elf([(5, 0, 0, 1 << 62, 1 << 62)], entry=0, length=400), id="a segment larger than the file"),
        pytest.param(elf([(5, 0, 0, 300, 200)], entry=0, length=400), id="less memory than file"),
    ],
)
def test_a_hostile_file_is_a_usage_error_in_little_memory(data):
    tracemalloc.start()
    with pytest.raises(UsageError):
        inspect(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_an_endless_dynamic_segment_in_a_large_file_ends():
    """Every tag is a name: a parser without a bound would read 16 million of them."""
    data = bytearray(64 << 20)
    data[:8192] = dynamic([(NEEDED, 1), (STRTAB, 4096)])
    struct.pack_into("<Q", data, 64 + 32, len(data))
    struct.pack_into("<Q", data, 64 + 40, len(data))
    pattern = struct.pack("<QQ", NEEDED, 1)
    data[512:4096] = pattern * ((4096 - 512) // 16)
    struct.pack_into("<QQ", data, 512, STRTAB, 4096)
    data[8192:] = pattern * ((len(data) - 8192) // 16)
    struct.pack_into("<Q", data, 120 + 8, 8192)
    with pytest.raises(UsageError, match="has no end"):
        inspect(bytes(data))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_change_of_any_bytes_crashes(program, data):
    damaged = bytearray(program.read_bytes())
    (dynamic_offset,) = [load.offset for load in load_image(program).segments if load.write][:1]
    region = st.one_of(st.integers(0, 900), st.integers(dynamic_offset, min(dynamic_offset + 700, len(damaged) - 1)))
    for position in data.draw(st.lists(region, min_size=1, max_size=4)):
        damaged[position] = data.draw(st.sampled_from([0, 1, 2, 6, 0x7F, 0x80, 0xFF]))
    damaged = damaged[: data.draw(st.sampled_from([len(damaged), 64, 700, 5000]))]
    for look in (inspect, load_image, sections):
        try:
            look(bytes(damaged))
        except UsageError:
            continue


def test_sections_are_listed(go_program):
    found = {section.name: section for section in sections(go_program)}
    assert found[".text"].type == "SHT_PROGBITS"
    assert found[".text"].size > 0


def test_a_32_bit_library_is_foreign_and_not_only_wrong():
    with pytest.raises(ForeignElfError):
        inspect(b"\x7fELF\1\1\1" + bytes(60))


def test_every_program_of_this_machine_is_understood():
    seen = 0
    for path in sorted(Path("/usr/bin").iterdir())[:150]:
        if path.is_file() and not path.is_symlink() and path.open("rb").read(4) == b"\x7fELF":
            inspect(path)
            seen += 1
    assert seen


def test_facts_are_those_that_pyelftools_finds():
    """Of programs and libraries of this machine; pyelftools reads the section header table as well, and agrees."""
    compared = 0
    for path in [*sorted(Path("/usr/bin").iterdir())[:60], *sorted(Path("/usr/lib").glob("*/*.so*"))[:120]]:
        if not path.is_file() or path.is_symlink() or path.open("rb").read(4) != b"\x7fELF":
            continue
        with path.open("rb") as file:
            oracle = ELFFile(file)
            tags = [tag for segment in oracle.iter_segments(type="PT_DYNAMIC") for tag in segment.iter_tags()]
            interpreters = [segment.get_interp_name() for segment in oracle.iter_segments(type="PT_INTERP")]
            places = [(section["sh_offset"], section["sh_size"], section.name) for section in oracle.iter_sections()]
            loads = [(each["p_vaddr"], each["p_offset"], each["p_filesz"]) for each in oracle.iter_segments(type="PT_LOAD")]
        facts = inspect(path)
        assert facts.needed == tuple(tag.needed.encode() for tag in tags if tag.entry.d_tag == "DT_NEEDED"), path
        assert [facts.soname] == [tag.soname.encode() for tag in tags if tag.entry.d_tag == "DT_SONAME"] or not facts.soname
        assert [facts.runpath] == [tag.runpath.encode() for tag in tags if tag.entry.d_tag == "DT_RUNPATH"] or not facts.runpath
        assert facts.interpreter == (interpreters[0].encode() if interpreters else b""), path
        assert [(section.offset, section.size, section.name) for section in sections(path)] == places, path
        assert [(load.address, load.offset, load.file_size) for load in load_image(path).segments] == loads, path
        compared += 1
    assert compared > 10
