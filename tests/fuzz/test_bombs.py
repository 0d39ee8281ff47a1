"""Small inputs that once asked for minutes or gigabytes. Each is refused within the bounds of `one_target`."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile

import pytest
from fuzz import binaries, images
from fuzz.bounds import bounded

from sconify_tasks import elf
from sconify_tasks.cas.frames import RefusedError, hex_bytes
from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image import tar_read
from sconify_tasks.image.files import FolderFiles
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.references import open_source


def header(name, kind, size=0, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(body, name="x"):
    return header(name, tarfile.XHDTYPE, len(body)) + body + bytes(-len(body) % 512)


def record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def refused(data, words):
    with bounded(), pytest.raises(UsageError, match=words):
        read_layer(io.BytesIO(data), layer=0)


def test_a_chain_of_pax_headers_is_refused_before_all_are_kept():
    refused(pax(record(b"comment", b"x" * 1_000_000)) * 300 + header("f", tarfile.REGTYPE), "more than 16 headers")


def test_a_chain_of_long_names_is_refused():
    one = header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 1_000_000) + bytes(1_000_448)
    refused(one * 300 + header("f", tarfile.REGTYPE), "more than 16 headers")


def test_names_and_attributes_of_a_layer_are_bounded(monkeypatch):
    monkeypatch.setattr(tar_read, "_TEXTS", 100_000)
    one = pax(record(b"SCHILY.xattr.user.a", b"x" * 60_000))
    refused(one + header("a", tarfile.REGTYPE) + one + header("b", tarfile.REGTYPE), "names and attributes")


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"user." + b"n" * 251, b""), (b"n" * 70_000, b""), (b"user.a", b"v" * 65_537), (b"", b"v"), (b"user.\0", b"v")],
    ids=range(5),
)
def test_attributes_that_no_file_has_are_refused(key, value):
    refused(pax(record(b"SCHILY.xattr." + key, value)) + header("f", tarfile.REGTYPE), "extended attribute")


@pytest.mark.parametrize("target", [b"a/" * 250_000, b"t" * 4096, b"a\0b"], ids=range(3))
def test_targets_that_no_symlink_has_are_refused(target):
    refused(pax(record(b"linkpath", target)) + header("l", tarfile.SYMTYPE), "no symlink can lead to")


def test_an_empty_target_is_refused():
    refused(header("l", tarfile.SYMTYPE), "no symlink can lead to")


@pytest.mark.parametrize("number", [{"devmajor": 1 << 40}, {"devminor": -1}], ids=["major", "minor"])
def test_device_numbers_that_no_format_holds_are_refused(number):
    data = bytearray(header("d", tarfile.CHRTYPE))
    field, value = next(iter(number.items()))
    at = 329 if field == "devmajor" else 337
    data[at : at + 8] = b"\x80" + value.to_bytes(7, "big") if value >= 0 else b"\xff" * 8
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:]) + 256)
    refused(bytes(data), "device number")


def test_a_section_table_of_huge_headers_is_not_read(tmp_path):
    """65535 headers of 65535 bytes, in a sparse file: four gigabytes that no layer has to carry."""
    data = bytearray(binaries.elf_of([]))
    data[0x28:0x30] = struct.pack("<Q", 4096)
    data[0x3A:0x3E] = struct.pack("<HH", 65_535, 65_535)
    program = tmp_path / "program"
    program.write_bytes(data)
    os.truncate(program, 5 << 30)
    with bounded():
        assert elf.inspect(program).stripped
        with pytest.raises(UsageError, match="65535 bytes each"):
            elf.sections(program)


def test_names_that_are_pointed_into_again_and_again_are_refused():
    """32767 times the same library name of 4095 bytes."""
    strings = b"\0" + b"n" * 4095 + b"\0"
    tags = struct.pack("<QQ", 5, 0x1000 + 64 + 112) + struct.pack("<QQ", 1, 1) * 32_000 + bytes(16)
    size = 64 + 112 + len(strings) + len(tags)

    def program(kind, offset, length):
        return struct.pack("<IIQQQQQQ", kind, 6, offset, 0x1000 + offset, 0, length, length, 4096)

    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0x1000, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    data = head + program(1, 0, size) + program(2, 64 + 112 + len(strings), len(tags)) + strings + tags
    with bounded(), pytest.raises(UsageError, match="names in its dynamic section are too long"):
        elf.inspect(data)


def test_indexes_that_name_one_index_again_and_again_are_refused(tmp_path):
    """Five levels of a thousand: 10^15 images."""
    files = images.layout(images.config(), images.layers()[0])
    inner = files["index.json"]
    for _ in range(4):
        files[f"blobs/sha256/{images.sha256(inner)[7:]}"] = inner
        inner = json.dumps({"manifests": [images.descriptor("index.v1+json", inner)] * 900}).encode()
    files["index.json"] = inner
    archive = tmp_path / "a.tar"
    archive.write_bytes(images.tar_of(files))
    with bounded(seconds=20), pytest.raises(UsageError, match="too many indexes"):
        open_source(f"oci-archive:{archive}", docker=pytest.fail, default_oci_store=tmp_path)


def test_a_config_that_is_named_again_and_again_is_read_once(tmp_path):
    config = json.loads(images.config())
    config["history"] = ["x" * 1000] * 1000
    members = images.docker_members(json.dumps(config).encode())
    members["manifest.json"] = json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}] * 9_000).encode()
    archive = tmp_path / "a.tar"
    archive.write_bytes(images.tar_of(members))
    with bounded():
        open_source(f"docker-archive:{archive}", docker=pytest.fail, default_oci_store=tmp_path).close()


def test_a_fifo_in_a_layout_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "oci-layout")
    with pytest.raises(UnavailableError, match="not a regular file"):
        FolderFiles(tmp_path, label="oci:x").extent("oci-layout")


@pytest.mark.parametrize("value", ["00 0", "    ", "0 0 "])
def test_blanks_in_hex_do_not_stand_for_bytes(value):
    with pytest.raises(RefusedError):
        hex_bytes(value, 2, "it")


@pytest.mark.parametrize("part", ["table", "names"])
def test_a_runtime_whose_sections_lie_beyond_any_file_is_refused(tmp_path, part):
    """Found by atheris: an offset that no file can be sought to."""
    from sconify_tasks.sconified import write_sconified

    data = bytearray(binaries.elf_of([]))
    (table,) = struct.unpack_from("<Q", data, 0x28)
    (names,) = struct.unpack_from("<H", data, 0x3E)
    struct.pack_into("<Q", data, 0x28 if part == "table" else table + 64 * names + 24, (1 << 64) - 1)
    runtime = tmp_path / "runtime"
    runtime.write_bytes(data)
    with pytest.raises(UsageError):
        write_sconified(runtime, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
