"""A name that means another image by the time when a worker opens it: nothing of that image counts as the planned one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from build.small_image import make_native, write
from cli.commands import run

from sconify_tasks.image.model import BuiltImage, Layer
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink

IMAGES = 4
HEAD = "version: 1\nproject: moved\ndefaults: {{binary: /bin/prog, dir: [/app], from: '{source}', base: '{base}'"
HEAD += ", allow-debug-mode: true, disable-pie-check: true{more}}}\nimages:\n"
# `doit WORDS`, in which PLACE begins to lead elsewhere once the plan is made, before the first worker is there.
SWITCHING = """
import os, sys
from pathlib import Path
from sconify_dodo import workers

place, target, *sys.argv[1:] = sys.argv[1:]
start = workers._start

def switching(given, started):
    if not started:
        Path(place + ".new").symlink_to(target)
        os.replace(place + ".new", place)
    return start(given, started)

workers._start = switching
from doit.__main__ import main
main()
"""


def folders(tmp_path: Path, program: Path) -> Sequence[Path]:
    found = []
    for name in ("first", "second"):
        native = make_native(tmp_path / name, program)
        write(native / "app" / "secret", name.upper().encode())
        found.append(native)
    return found


def layouts(natives: Sequence[Path]) -> Sequence[Path]:
    return [_layout(native, native.with_name(native.name + "-layout")) for native in natives]


def _layout(native: Path, into: Path) -> Path:
    source = RootfsSource(native)
    with source.layer_files() as layers:
        config = {**json.loads(native.with_name(native.name + ".json").read_text())}
        config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        held = tuple(Layer(diff_id=layer.diff_id, size=layer.size, path=layer.path) for layer in layers)
        OciSink(into).deliver(
            BuiltImage(base_diff_ids=(), layers=held, config=json.dumps(config).encode()), ScratchSource(), "1"
        )
    source.close()
    return into


@pytest.mark.parametrize(
    ("source", "base"),
    [("dir:../current", "scratch"), ("oci:../current:1", "scratch"), ("dir:../current", "dir:../base")],
    ids=["folder", "layout", "folder on a folder"],
)
def test_what_a_name_means_later_is_never_taken_for_what_it_meant(program, place, tmp_path, source, base):
    natives = folders(tmp_path, program)
    (tmp_path / "base" / "etc").mkdir(parents=True)
    first, second = layouts(natives) if source.startswith("oci:") else natives
    current, config = tmp_path / "current", tmp_path / "current.json"
    current.symlink_to(first.name)
    config.write_bytes((tmp_path / "first.json").read_bytes())

    def project(folder: Path, more: str) -> None:
        lines = [f"  image-{number}: {{to: 'oci:out/{number}:1', env: [N={number}]}}\n" for number in range(IMAGES)]
        (folder / "sconify.yaml").write_text(HEAD.format(source=source, base=base, more=more) + "".join(lines))

    def digests(folder: Path) -> list[str]:
        layout = [(folder / "out" / str(number) / "index.json").read_bytes() for number in range(IMAGES)]
        return [hashlib.sha256(index).hexdigest() for index in layout]

    project(place.folder, "")
    assert run(place, ["doit", "sconify", "-n", "2"]).code == 0
    project(place.folder, ", heap: 64M, env: [LATER=1]")
    moved = run(place, ["python", "-c", SWITCHING, str(current), second.name, "sconify", "-n", "2"])
    assert moved.code in (0, 1)
    if moved.code:
        assert all("changed" in line or "another image by now" in line for line in moved.errors), moved.stderr
    later = run(place, ["doit", "sconify", "-n", "2"])
    assert later.code == 0, later.stderr
    clean = place.beside(tmp_path / "clean")
    project(clean.folder, ", heap: 64M, env: [LATER=1]")
    assert run(clean, ["doit", "sconify", "-n", "1"]).code == 0
    assert digests(place.folder) == digests(clean.folder)
    # And nothing of the second image was filed under the first one's identity.
    current.unlink()
    current.symlink_to(first.name)
    again = place.beside(tmp_path / "again")
    project(again.folder, ", heap: 64M, env: [LATER=1]")
    assert run(place, ["doit", "sconify", "-n", "2"]).code == 0
    assert run(again, ["doit", "sconify", "-n", "1"]).code == 0
    assert digests(place.folder) == digests(again.folder)
