"""Whoever changes what a container starts with is refused before the program runs its first line, and told why."""

import re
import socket
import struct

import pytest
from main_job.containers import Change, changed

BINARY = "/usr/bin/python3.11"
MANIFEST = "/fspf/fs.fspf"
LOADER = "python3: error while loading shared libraries"  # ld.so's own words about a file that it may not open


def _refused(ended, *reasons):
    assert not ended.started, ended.stdout
    assert ended.stdout == ""
    assert ended.status not in (0, 137), ended
    lines = [line for line in ended.stderr.splitlines() if line]
    assert lines, ended
    assert all(line.startswith(("[SCONE|", LOADER)) for line in lines), ended.stderr
    for reason in reasons:
        assert re.search(reason, ended.stderr), (reason, ended.stderr)


def test_the_unchanged_image_starts(lab, containers):
    ended = containers.run(lab, "tell(secret=read('/app/other.txt'))")
    assert (ended.status, ended.stderr) == (0, "")


@pytest.fixture(scope="module")
def manifest(lab, containers):
    return containers.read(lab, MANIFEST)


@pytest.fixture(scope="module")
def binary(lab, containers):
    return containers.read(lab, BINARY)


@pytest.mark.parametrize("at", [0, 8, 20, 48, 1000, -1], ids=["magic", "version", "salt", "first byte", "inside", "last byte"])
def test_a_flipped_bit_in_the_manifest(at, lab, containers, manifest):
    _refused(containers.run(lab, changes={MANIFEST: Change(content=changed(manifest, at=at))}), MANIFEST, "session")


@pytest.mark.parametrize("damage", ["truncated", "extended", "empty"])
def test_a_manifest_of_another_length(damage, lab, containers, manifest):
    content = {"truncated": manifest[:-16], "extended": manifest + b"\0", "empty": b""}[damage]
    _refused(containers.run(lab, changes={MANIFEST: Change(content=content)}), MANIFEST)


def test_a_manifest_that_is_a_link(lab, containers, manifest):
    changes = {"/opt/fs.fspf": Change(content=manifest), MANIFEST: Change(target="/opt/fs.fspf")}
    _refused(containers.run(lab, changes=changes), MANIFEST)


def _section(binary, name):
    """Offset and size of a section, as the ELF specification lays them out."""
    table, count, names = struct.unpack_from("<Q", binary, 0x28)[0], *struct.unpack_from("<HH", binary, 0x3C)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + 64 * number) for number in range(count)]
    strings = headers[names][4]
    for header in headers:
        if binary[strings + header[0] :].split(b"\0", 1)[0] == name:
            return header[4], header[5]
    raise AssertionError(name)


def _code(binary):
    """Offset and size of the segment that the runtime's code is in."""
    (entry,) = struct.unpack_from("<Q", binary, 0x18)
    table, size, count = struct.unpack_from("<Q", binary, 0x20)[0], *struct.unpack_from("<HH", binary, 0x36)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", binary, table + size * number)
        if kind == 1 and address <= entry < address + length:
            return offset, length
    raise AssertionError


MODIFIED = "the measured part of the binary was modified"


@pytest.mark.parametrize(("section", "at"), [
    (b".sconify.config", 10),
    (b".sconify.config", 4000),
    (b".sconify.sig", 960),
    (b".sconify.sig", 128),
    (b".sconify.sig", 600),
], ids=["config", "config's padding", "signed measurement", "signer", "signature"])  # fmt: skip
def test_a_flipped_bit_in_a_measured_section(section, at, lab, containers, binary):
    offset, size = _section(binary, section)
    assert at < size
    _refused(containers.run(lab, changes={BINARY: Change(content=changed(binary, at=offset + at), mode=0o755)}), MODIFIED)


def test_a_flipped_bit_in_the_runtimes_code(lab, containers, binary):
    offset, length = _code(binary)
    # In the last function of the text: an instruction that a start does not reach, or it could not say anything.
    damaged = changed(binary, at=offset + length - 64)
    _refused(containers.run(lab, changes={BINARY: Change(content=damaged, mode=0o755)}), MODIFIED)


def test_a_flipped_bit_in_the_original_that_the_binary_carries(lab, containers, binary):
    offset, size = _section(binary, b".sconify.elf")
    for at in (100, size // 2, size - 1):
        _refused(containers.run(lab, changes={BINARY: Change(content=changed(binary, at=offset + at), mode=0o755)}), BINARY)


def test_a_config_that_asks_for_less(lab, containers, binary):
    """Looser rules written into the measured config, and into the environment that must agree: nobody signed them."""
    offset, size = _section(binary, b".sconify.config")
    text = binary[offset : offset + size]
    rewritten = text.replace(b'"dlopen":1', b'"dlopen":2')
    assert rewritten != text
    damaged = binary[:offset] + rewritten + binary[offset + size :]
    _refused(
        containers.run(lab, changes={BINARY: Change(content=damaged, mode=0o755)}, environment={"SCONE_ALLOW_DLOPEN": "2"}),
        MODIFIED,
    )


@pytest.mark.parametrize(
    "library",
    ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libm.so.6"],
)
def test_a_modified_loader_or_library(library, lab, containers):
    content = containers.read(lab, library)
    for at in (0, len(content) // 2):
        _refused(
            containers.run(lab, changes={library: Change(content=changed(content, at=at), mode=0o755)}), re.escape(library)
        )


def test_a_library_that_is_a_link(lab, containers):
    library = "/lib/x86_64-linux-gnu/libm.so.6"
    changes = {
        "/opt/libm.so.6": Change(content=containers.read(lab, library), mode=0o755),
        library: Change(target="/opt/libm.so.6"),
    }
    _refused(containers.run(lab, changes=changes), r"libm\.so\.6 was changed after the image was built")


def test_the_program_of_the_command_is_changed(lab, containers):
    """Python starts and finds no readable script: the script's first line never runs."""
    damaged = changed(containers.read(lab, "/app/lab.py"), at=5)
    ended = containers.run(lab, "tell()", changes={"/app/lab.py": Change(content=damaged)})
    assert (ended.started, ended.status) == (False, 2)
    assert "/app/lab.py was changed after the image was built" in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("SCONE_HEAP", "2G", "--heap=2G"),
        ("SCONE_STACK", "64K", "--stack=64K"),
        ("SCONE_ALLOW_DLOPEN", "2", "--dlopen=2"),
        ("SCONE_FORK", "1", "--fork=1"),
        ("SCONE_MPROTECT", "0", "--mprotect=0"),
        ("SCONE_HEAP", "plenty", "--heap"),
    ],
)
def test_a_host_that_contradicts_the_measured_config(name, value, option, lab, containers):
    _refused(containers.run(lab, environment={name: value}), f"{name}={value} contradicts the measured configuration", option)


def test_a_host_that_says_the_same_in_other_words_is_no_contradiction(lab, containers):
    assert containers.run(lab, "tell(ran=True)", environment={"SCONE_HEAP": "1024M", "SCONE_LOG": "error"}).told == {
        "ran": True
    }


@pytest.mark.parametrize("config_id", ["no-such-namespace/session/service", "nonsense", "/", "a/b/c/d", "x" * 5000])
def test_an_unknown_config_id(config_id, lab, containers):
    _refused(containers.run(lab, environment={"SCONE_CONFIG_ID": config_id}), "unknown-session|bad-request")


def test_a_config_id_that_is_empty_or_names_no_service(lab, containers, workshop):
    _refused(containers.run(lab, environment={"SCONE_CONFIG_ID": ""}), "SCONE_CONFIG_ID is not set")
    _refused(containers.run(lab, environment={"SCONE_CONFIG_ID": workshop.session("lab") + "/other"}), "unknown-service")


def test_the_session_of_another_measurement(lab, containers, workshop, native):
    workshop.confidential(
        "heap", native, f"--base=docker:{native.base}", "--command=python3 -B /app/lab.py", "--allow-debug-mode", "--heap=2G"
    )
    session = workshop.session("heap")
    ended = containers.run(lab, environment={"SCONE_CONFIG_ID": f"{session}/service"})
    _refused(ended, "unexpected-measurement", session)


def test_the_session_of_another_image_with_the_same_measurement(lab, api, containers, workshop):
    ended = containers.run(lab, environment={"SCONE_CONFIG_ID": workshop.session("api") + "/service"})
    _refused(ended, MANIFEST, "session")


def test_no_cas(lab, containers):
    with socket.socket() as closed:
        closed.bind((containers.cas.host, 0))  # bound and not listening: refused, and nobody else's
        ended = containers.run(lab, environment={"SCONE_CAS_ADDR": f"{containers.cas.host}:{closed.getsockname()[1]}"})
    _refused(ended, "no CAS with the pinned identity key answers", "check SCONE_CAS_ADDR and that the CAS runs")


def test_no_las(lab, containers):
    with socket.socket() as closed:
        closed.bind((containers.cas.host, 0))
        ended = containers.run(lab, environment={"SCONE_LAS_ADDR": f"{containers.cas.host}:{closed.getsockname()[1]}"})
    _refused(ended, "quote-required|bad-quote", "LAS|quote")


def test_a_port_that_is_no_cas(lab, containers):
    las = f"{containers.cas.host}:{containers.cas.las_port}"
    _refused(containers.run(lab, environment={"SCONE_CAS_ADDR": las}), "no CAS with the pinned identity key answers")
