"""The sconified ELF: it still runs, other tools read it, `strip` leaves it whole, and no damaged one is read."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess

import pytest
from elftools.elf.elffile import ELFFile
from msgspec.structs import replace
from vectors.make import CONFIG, ELFS

from sconify_tasks.elf_place import FilePart
from sconify_tasks.errors import StoreError, UsageError
from sconify_tasks.sconified import CONFIG as CONFIG_SECTION
from sconify_tasks.sconified import ELF, FILE_SYSTEM, SIGNATURE, read_sconified, write_sconified
from sconify_tasks.sgx.measured_config import MeasuredBinary
from sconify_tasks.sgx.measurement import EnclaveError
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct, verify_sigstruct

PAYLOAD = b"\x7fELF original " * 1000


def config_for(payload, **changes):
    binary = MeasuredBinary(path="/app/run", sha256=hashlib.sha256(payload).hexdigest(), size=len(payload), protected=False)
    return replace(CONFIG, binary=binary, **changes)


def contents_for(runtime, config, payload=PAYLOAD):
    signature = build_sigstruct(measure(runtime, config), debug_signer(), debug=True)
    return {CONFIG_SECTION: config.encode(), SIGNATURE: signature, ELF: payload}


@pytest.fixture(scope="module")
def sconified(go_program, tmp_path_factory):
    path = tmp_path_factory.mktemp("sconified") / "run"
    write_sconified(go_program, path, contents_for(go_program, config_for(PAYLOAD)))
    return path


def section(path, name):
    place = read_sconified(path).sections[name]
    with path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


def test_what_was_written_is_read(sconified, go_program):
    found = read_sconified(sconified)
    assert found.config == config_for(PAYLOAD)
    verify_sigstruct(found.sigstruct, mrenclave=measure(go_program, found.config))
    assert section(sconified, ELF) == PAYLOAD
    assert all(place.offset % 4096 == 0 for place in found.sections.values())


def test_it_runs_as_the_runtime_does(sconified, go_program):
    assert sconified.stat().st_mode & 0o777 == 0o755
    for program in (go_program, sconified):
        assert subprocess.run([program], capture_output=True, check=True).stdout == b"hello\n"


def test_mrenclave_does_not_depend_on_what_is_appended(sconified, go_program):
    assert measure(sconified, config_for(PAYLOAD)) == measure(go_program, config_for(PAYLOAD))


def test_segments_are_untouched(sconified, go_program):
    with go_program.open("rb") as before, sconified.open("rb") as after:
        old, new = ELFFile(before), ELFFile(after)
        assert [segment.header for segment in old.iter_segments()] == [segment.header for segment in new.iter_segments()]
        old_names = [found.name for found in old.iter_sections()]
        new_names = [found.name for found in new.iter_sections()]
    assert new_names == [*old_names, CONFIG_SECTION, SIGNATURE, ELF]


@pytest.mark.parametrize("command", [["strip"], ["strip", "--strip-unneeded"], ["objcopy", "--strip-all"]])
def test_it_survives_strip_with_the_same_mrenclave(sconified, tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip("binutils is not installed")
    stripped = tmp_path / "run"
    shutil.copy(sconified, stripped)
    subprocess.run([*command, str(stripped)], check=True)
    assert stripped.read_bytes() != sconified.read_bytes()
    found = read_sconified(stripped)
    assert found.config == read_sconified(sconified).config
    assert found.sigstruct == read_sconified(sconified).sigstruct
    assert section(stripped, ELF) == PAYLOAD
    assert measure(stripped, found.config) == found.sigstruct.mrenclave
    assert subprocess.run([stripped], capture_output=True, check=True).stdout == b"hello\n"


def test_readelf_reads_it_without_a_complaint(sconified):
    if shutil.which("readelf") is None:
        pytest.skip("binutils is not installed")
    result = subprocess.run(["readelf", "-hlSW", str(sconified)], capture_output=True, check=True, text=True)
    assert result.stderr == ""
    assert ".sconify.config" in result.stdout


def test_the_same_bytes_in_any_order_and_to_any_kind_of_output(go_program, sconified, tmp_path):
    contents = contents_for(go_program, config_for(PAYLOAD))
    (tmp_path / "payload").write_bytes(PAYLOAD)
    reversed_contents = dict(reversed((contents | {ELF: tmp_path / "payload"}).items()))

    class Hashing:
        """A stream that only goes forward."""

        def __init__(self):
            self.digest = hashlib.sha256()

        def write(self, data):
            self.digest.update(data)
            return len(data)

    hashing = Hashing()
    write_sconified(go_program, hashing, reversed_contents)
    write_sconified(go_program, tmp_path / "run", reversed_contents)
    assert (tmp_path / "run").read_bytes() == sconified.read_bytes()
    assert hashing.digest.digest() == hashlib.sha256(sconified.read_bytes()).digest()
    with (tmp_path / "behind").open("wb") as out:
        out.write(b"head")
        write_sconified(go_program, out, reversed_contents)
    assert (tmp_path / "behind").read_bytes() == b"head" + sconified.read_bytes()


def test_a_large_payload_is_carried(go_program, tmp_path):
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.truncate(300 << 20)
        file.seek(200 << 20)
        file.write(b"in the middle")
    write_sconified(go_program, tmp_path / "run", {ELF: payload})
    start = -(-go_program.stat().st_size // 4096) * 4096
    with (tmp_path / "run").open("rb") as file:
        file.seek(start + (200 << 20))
        assert file.read(13) == b"in the middle"


@pytest.mark.parametrize("name", ELFS)
def test_a_runtime_without_section_headers_gets_some(name, tmp_path):
    runtime = bytearray(ELFS[name])
    runtime[0x28:0x30] = bytes(8)
    runtime[0x3C:0x40] = bytes(4)
    (tmp_path / "runtime").write_bytes(runtime)
    config = config_for(PAYLOAD)
    write_sconified(tmp_path / "runtime", tmp_path / "run", contents_for(bytes(runtime), config))
    assert read_sconified(tmp_path / "run").config == config
    assert measure(tmp_path / "run", config) == measure(bytes(runtime), config)


def test_a_runtime_with_a_wrong_section_table_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "runtime").write_bytes(next(iter(ELFS.values())))
    with pytest.raises(UsageError, match="the runtime runtime"):
        write_sconified(tmp_path / "runtime", tmp_path / "run", {})
    assert [path.name for path in tmp_path.iterdir()] == ["runtime"]


def test_a_failed_write_leaves_the_old_file(go_program, tmp_path):
    (tmp_path / "run").write_bytes(b"old")
    with pytest.raises(StoreError, match=r"run can't be written: .*absent"):
        write_sconified(go_program, tmp_path / "run", {ELF: tmp_path / "absent"})
    assert (tmp_path / "run").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_payload_that_shrinks_is_an_error(go_program, tmp_path):
    (tmp_path / "payload").write_bytes(bytes(5000))

    class Shrinking:
        def write(self, data):
            (tmp_path / "payload").write_bytes(b"short")
            return len(data)

    with pytest.raises(StoreError, match="became shorter"):
        write_sconified(go_program, Shrinking(), {ELF: tmp_path / "payload"})


def test_a_section_of_another_name_is_not_written(go_program, tmp_path):
    with pytest.raises(ValueError, match=r"\.text"):
        write_sconified(go_program, tmp_path / "run", {".text": b""})


@pytest.mark.parametrize(
    ("config", "drop", "code"),
    [
        pytest.param({}, CONFIG_SECTION, "section", id="no config"),
        pytest.param({}, SIGNATURE, "section", id="no signature"),
        pytest.param({}, ELF, "payload", id="no original"),
        pytest.param({"binary_fs": "ab" * 32}, None, "payload", id="no embedded file system"),
    ],
)
def test_a_file_without_what_its_config_names_is_refused(go_program, tmp_path, config, drop, code):
    contents = contents_for(go_program, config_for(PAYLOAD, **config))
    write_sconified(go_program, tmp_path / "run", {name: content for name, content in contents.items() if name != drop})
    with pytest.raises(EnclaveError) as refusal:
        read_sconified(tmp_path / "run")
    assert refusal.value.code == code


def test_a_file_with_what_its_config_does_not_name_is_refused(go_program, tmp_path):
    contents = contents_for(go_program, config_for(PAYLOAD)) | {FILE_SYSTEM: b"files"}
    write_sconified(go_program, tmp_path / "run", contents)
    with pytest.raises(EnclaveError, match=r"\.sconify\.fs"):
        read_sconified(tmp_path / "run")


def test_a_file_sconified_twice_is_refused(sconified, tmp_path):
    write_sconified(sconified, tmp_path / "twice", contents_for(sconified, config_for(PAYLOAD)))
    with pytest.raises(EnclaveError, match="unexpected section"):
        read_sconified(tmp_path / "twice")


def test_a_plain_program_is_no_sconified_one(go_program):
    with pytest.raises(EnclaveError, match=r"no section \.sconify\.config"):
        read_sconified(go_program)


def test_a_section_table_in_a_segment_is_refused(sconified, tmp_path):
    """It is not measured there: it could stand in the place of zeros that are loaded."""
    data = bytearray(sconified.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    gap = 0x158  # where the linker had its table
    assert not any(data[gap : gap + 64 * count])
    data[gap : gap + 64 * count] = data[table : table + 64 * count]
    struct.pack_into("<Q", data, 0x28, gap)
    (tmp_path / "run").write_bytes(data)
    with pytest.raises(EnclaveError, match="lies in a segment"):
        read_sconified(tmp_path / "run")


@pytest.mark.parametrize(("field", "value"), [(24, 4097), (24, 1 << 40), (32, 1 << 62), (4, 8)])
def test_a_section_header_that_lies_is_refused(sconified, tmp_path, field, value):
    data = bytearray(sconified.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    struct.pack_into("<I" if field == 4 else "<Q", data, table + (count - 3) * 64 + field, value)
    (tmp_path / "run").write_bytes(data)
    with pytest.raises(EnclaveError):
        read_sconified(tmp_path / "run")


def test_one_in_the_middle_of_another_file_is_read_and_measured_there(sconified, tmp_path):
    data = sconified.read_bytes()
    around = tmp_path / "around"
    around.write_bytes(b"\x7fELF before" * 100 + data + b"behind" * 100)
    part = FilePart(path=around, offset=1100, size=len(data), name="run")
    assert read_sconified(part) == read_sconified(sconified)
    assert measure(part, config_for(PAYLOAD)) == measure(sconified, config_for(PAYLOAD))
    with pytest.raises(UsageError, match="run is a malformed ELF file"):
        read_sconified(replace(part, size=len(data) - 1))
