"""A whole build for another platform than this machine's, from an index of two."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from build.small_image import SECRET, Place, Recorder, convert, world_of
from image.test_platforms import OCI, Layout
from parts.images import file, folder, layer_bytes

from sconify_tasks.image.oci import OciSource
from sconify_tasks.sgx.measured_config import decode_config
from sconify_tasks.world import RUNTIMES

MACHINES = {"amd64": 62, "arm64": 183}  # ELF(5): e_machine of x86-64 and AArch64


@pytest.fixture
def index(tmp_path) -> Layout:
    """An image of two platforms, each with its own program and secret; a static program that is at hand is the runtime."""
    layout = Layout(tmp_path / "both")
    manifests = []
    for architecture in MACHINES:
        program = (RUNTIMES / f"runtime-{architecture}").read_bytes()
        secret = SECRET + architecture.encode()
        tar = layer_bytes(
            folder(b"/app"), file(b"/app/secret", secret), folder(b"/bin"), file(b"/bin/prog", program, mode=0o755)
        )
        platform = {"os": "linux", "architecture": architecture}
        diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest()]
        config = platform | {"config": {"Cmd": ["/bin/prog"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": layout.put(OCI + "config.v1+json", config),
            "layers": [layout.put(OCI + "layer.v1.tar+gzip", gzip.compress(tar, 1))],
        }
        manifests.append(layout.put(OCI + "manifest.v1+json", manifest, platform=platform))
    layout.write(layout.index(*manifests))
    return layout


def test_what_is_made_for_arm64_is_of_arm64_throughout(native, place: Place, index: Layout):
    outcome = convert(native, place, platform="linux/arm64", plain=(), **{"from": f"oci:{index.folder}:t"})
    assert (outcome.code, outcome.warnings) == (0, [])
    made = OciSource(place.layout, "small", platform="linux/arm64")
    assert (made.config.os, made.config.architecture) == ("linux", "arm64")
    program = made.read(b"/bin/prog", limit=1 << 26)
    assert program is not None
    assert int.from_bytes(program[18:20], "little") == MACHINES["arm64"]
    for layer in place.layers():
        assert SECRET not in layer.read_bytes()

    original = (RUNTIMES / "runtime-arm64").read_bytes()
    with world_of(place, Recorder()) as world:
        signed = world.actions.latest(f"{world.keys.project}\0oci:{place.layout}:small", "sign")
        assert signed is not None
        measured = decode_config(world.store.get(signed.outputs["config"])).binary
    assert (measured.size, measured.sha256) == (len(original), hashlib.sha256(original).hexdigest())
