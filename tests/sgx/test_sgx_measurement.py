"""MRENCLAVE: the product against a verifier written from the SDM, the vectors, and what must and must not change it."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sgx import sdm
from vectors.make import CONFIG, CONFIGS, ELFS, elf

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.layout import layout
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.sgxs import measure, records, write_sgxs

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "mrenclave.json").read_text())
ELF = next(iter(ELFS.values()))
SMALL = CONFIGS["smallest"]


def named(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


def config_of(fields):
    fields = {name: value for name, value in fields.items() if name != "v"}
    return MeasuredConfig(**fields | {"binary": MeasuredBinary(**fields["binary"])})


def sdm_measure(data, config):
    return sdm.measure(data, config.encode(), threads=config.threads, heap=config.heap, stack=config.stack)


@named(VECTORS["cases"])
def test_the_vectors_are_measured_alike_by_the_product_and_from_the_sdm(case):
    data, config = bytes.fromhex(case["elf"]), config_of(case["config"])
    assert measure(data, config) == case["mrenclave"] == sdm_measure(data, config)
    enclave = layout(data, config)
    assert (enclave.size, enclave.config_offset, enclave.threads_offset) == (
        case["size"],
        case["config_offset"],
        case["threads_offset"],
    )


@named(VECTORS["refused"])
def test_what_can_not_be_an_enclave_is_refused_for_its_own_reason(case):
    with pytest.raises(EnclaveError) as refusal:
        measure(bytes.fromhex(case["elf"]), config_of(case["config"]))
    assert refusal.value.code == case["error"]


@pytest.mark.parametrize("name", ELFS)
@pytest.mark.parametrize("config", ["typical", "smallest"])
def test_a_processor_accepts_the_stream(name, config):
    out = io.BytesIO()
    mrenclave = write_sgxs(out, ELFS[name], CONFIGS[config])
    processor = sdm.Processor(out.getvalue())
    assert processor.mrenclave == mrenclave
    assert processor.ssa_frame_size == 1
    assert sum(flags >> 8 == 1 for flags, _ in processor.pages.values()) == CONFIGS[config].threads


@st.composite
def elf_files(draw):
    """Ascending segments with any gap, lead and tail."""
    segments, address, offset = [], draw(st.integers(0, 20)) * 4096, draw(st.integers(0, 300))
    for _ in range(draw(st.integers(1, 3))):
        start = address + draw(st.integers(0, 5000))
        file_size = draw(st.integers(0, 600))
        memory_size = file_size + draw(st.integers(0 if file_size else 1, 9000))
        segments.append((draw(st.integers(0, 7)), offset, start, file_size, memory_size))
        address, offset = (start + memory_size + 4095) // 4096 * 4096, offset + file_size
    return elf(segments, entry=segments[0][2], length=max(offset, 400), sections=draw(st.integers(0, 500)))


@given(elf_files(), st.integers(1, 3), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_any_elf_is_measured_as_the_sdm_says(data, threads, heap, stack):
    config = replace(SMALL, threads=threads, heap=heap * 4096, stack=stack * 4096)
    assert measure(data, config) == sdm_measure(data, config)


@pytest.mark.parametrize(
    "change",
    [
        {"heap": 8192},
        {"stack": 1 << 20},
        {"dlopen": 1},
        {"fork": 1},
        {"mprotect": 1},
        {"threads": 2},
        {"binary_fs": "00" * 32},
        {"cas_spki": "00" * 32},
        {"binary": replace(SMALL.binary, path="/usr/bin/other")},
        {"binary": replace(SMALL.binary, sha256="00" * 32)},
        {"binary": replace(SMALL.binary, size=1)},
        {"binary": replace(SMALL.binary, protected=True)},
    ],
    ids=str,
)
def test_every_measured_value_changes_mrenclave(change):
    assert measure(ELF, replace(SMALL, **change)) != measure(ELF, SMALL)


LOADED = 300


def test_every_loaded_byte_of_the_runtime_changes_mrenclave_but_places_in_the_file():
    """The fields that appending sections and strip change are not measured; every other byte of the segment is."""
    reference, unmeasured = measure(ELF, SMALL), set()
    for position in range(LOADED):
        changed = bytearray(ELF)
        changed[position] ^= 1
        try:
            if measure(bytes(changed), SMALL) == reference:
                unmeasured.add(position)
        except (UsageError, EnclaveError):
            continue  # a header that is no longer one
    fields = {*range(0x28, 0x30), *range(0x3A, 0x40)}
    assert unmeasured <= fields | set(range(64 + 8, 64 + 16)) | set(range(120 + 8, 120 + 16))
    assert {0x28, 0x3C, 0x3E} <= unmeasured


def test_the_cost_does_not_grow_with_heap():
    small = sum(map(len, records(layout(ELF, SMALL), ELF)))
    large = sum(map(len, records(layout(ELF, replace(SMALL, heap=1 << 40)), ELF)))
    assert small == large


def test_size_is_the_smallest_power_of_two_that_holds_all():
    assert layout(ELF, SMALL).size == 1 << 21
    one_thread = 21 * 4096
    fixed = layout(ELF, SMALL).threads_offset + one_thread
    assert layout(ELF, replace(SMALL, heap=(1 << 30) - fixed)).size == 1 << 30
    assert layout(ELF, replace(SMALL, heap=(1 << 30) - fixed + 4096)).size == 1 << 31
    assert layout(ELF, replace(SMALL, stack=(1 << 30) - fixed + 65_536)).size == 1 << 30
    assert layout(ELF, replace(SMALL, stack=(1 << 30) - fixed + 65_536 + 4096)).size == 1 << 31


def test_a_file_and_its_bytes_are_measured_alike(tmp_path):
    (tmp_path / "runtime").write_bytes(ELF)
    assert measure(tmp_path / "runtime", CONFIG) == measure(ELF, CONFIG)


@pytest.mark.parametrize(
    "segments",
    [
        [(5, 0, 0x1000, 300, 1 << 40)],
        [(5, 0, 0x1000, 300, 1 << 62)],
        [(5, 0, (1 << 64) - 4096, 300, 300)],
        [(5, 0, 0x1000, 1 << 40, 1 << 41)],
        [(5, 0, 0x1000, 300, 200)],
        [],
    ],
)
def test_hostile_segments_are_refused_at_once(segments):
    with pytest.raises((EnclaveError, UsageError)):
        measure(elf(segments, entry=0x1000, length=400), CONFIG)


@pytest.mark.parametrize("value", ["", "ab" * 31, "AB" * 32, "ab" * 32 + "\n", "g" * 64])
def test_a_measurement_is_64_lower_case_hex_digits(value):
    with pytest.raises(ValueError, match="not an MRENCLAVE"):
        MrEnclave(value)


def test_the_stream_is_what_is_hashed():
    stream = b"".join(records(layout(ELF, SMALL), ELF))
    assert hashlib.sha256(stream).hexdigest() == measure(ELF, SMALL)
    assert stream[:8] == b"ECREATE\0"
    assert struct.unpack_from("<IQ", stream, 8) == (1, 1 << 21)
