"""What of a real build changes MRENCLAVE, what does not, and what measuring costs."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from build.small_image import Place, Recorder, compile_program, make_native, order_for, world_of

from sconify_dodo.front import make_build
from sconify_tasks.sconified import read_sconified, write_sconified
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct
from sconify_tasks.world import RUNTIMES, World

STEPS = {"inspect", "binary", "cas", "sign"}


def measured(native: Path, place: Place, *, change_world=None, variables=None, **given) -> str:
    """MRENCLAVE of a build that goes no further than its signature."""
    with world_of(place, Recorder(), **(variables or {})) as world:
        if change_world:
            change_world(world)
        build = make_build(world, order_for(native, place, **given))
        try:
            build.plan()
            for step in build.steps:
                if step.name in STEPS:
                    build.execute(step)
            return str(build.settled["sign"].facts["mrenclave"])
        finally:
            build.close()


@pytest.mark.parametrize(
    "change",
    [
        {"heap": 2 << 30},
        {"stack": 2 << 20},
        {"dlopen": 2},
        {"fork": 1},
        {"mprotect": 0},
        {"threads": 9},
        {"cas": "cas.example", "cas_key": "ab" * 32},
        {"dir": ("/app", "/bin")},
    ],
    ids=str,
)
def test_every_setting_of_the_enclave_changes_it(change, native, place):
    assert measured(native, place, **change) != measured(native, place)


def test_another_program_another_path_and_another_runtime_change_it(native, place, need, tmp_path, monkeypatch):
    before = measured(native, place)
    (tmp_path / "2").mkdir()
    other = compile_program(need("gcc"), tmp_path / "2" / "prog", "-static", source="int main(void) { return 1; }\n")
    assert measured(make_native(tmp_path / "2" / "native", other), place) != before
    (native / "bin" / "prog").rename(native / "bin" / "moved")
    assert measured(native, place, binary="/bin/moved", command="/bin/moved") != before
    (native / "bin" / "moved").rename(native / "bin" / "prog")
    runtime = bytearray((RUNTIMES / "runtime-amd64").read_bytes())
    runtime[runtime.index(b"SCONE_HASH")] ^= 1
    (tmp_path / "runtime").write_bytes(runtime)
    monkeypatch.setattr(World, "runtime", lambda self, architecture: tmp_path / "runtime")
    monkeypatch.setattr(World, "runtimes_digest", "0" * 64)
    assert measured(native, place) != before


def test_places_times_names_and_machines_do_not(native, place, program, tmp_path):
    before = measured(native, place)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "machine").mkdir()
    elsewhere = make_native(tmp_path / "elsewhere" / "root", program)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1_800_000_000, 1_800_000_000), follow_symlinks=False)
    machine = Place(folder=tmp_path / "machine")
    shutil.copytree(place.state / "cas", machine.state / "cas")  # the CAS is an input
    assert measured(elsewhere, machine) == before
    same = (
        {"to": f"oci:{tmp_path}/another:name"},
        {"name": "another", "namespace": "another"},
        {"env": ("A=b",), "las": "las.example", "service_name": "other", "log": "debug"},
        {"isvsvn": 3, "isvprodid": 3, "signing_date": 20260101},
        {"plain": ()},
        {"key_epoch": 7},
    )
    for change in same:
        assert measured(elsewhere, machine, **change) == before, change
    assert measured(native, place, variables={"SOURCE_DATE_EPOCH": "1800000000"}) == before


def read_bytes_while(action) -> int:
    """What this thread reads, in bytes (proc(5), `rchar`)."""

    def read() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    before = read()
    action()
    return read() - before


def test_what_is_read_and_hashed_depends_on_neither_payload_nor_heap(tmp_path):
    costs = set()
    for size, heap in ((1 << 20, 1 << 20), (96 << 20, 1 << 20), (1 << 20, 1 << 40)):
        payload, out = tmp_path / "payload", tmp_path / "out"
        with payload.open("wb") as file:
            file.truncate(size)
        binary = MeasuredBinary(path="/bin/x", sha256="00" * 32, size=size, protected=False)
        config = MeasuredConfig(heap=heap, stack=1 << 20, dlopen=0, fork=0, mprotect=0, threads=1, binary=binary)
        runtime = RUNTIMES / "runtime-amd64"
        mrenclave = measure(runtime, config)
        sigstruct = build_sigstruct(mrenclave, debug_signer(), debug=True)
        sections = {".sconify.config": config.encode(), ".sconify.sig": sigstruct, ".sconify.elf": payload}
        write_sconified(runtime, out, sections)
        assert read_sconified(out).sigstruct.mrenclave == measure(out, config) == mrenclave
        costs.add(read_bytes_while(partial(measure, out, config)))
    assert max(costs) - min(costs) < 64 << 10, costs
    assert max(costs) < 2 * (RUNTIMES / "runtime-amd64").stat().st_size
