"""What the manifest of a finished image says."""

from __future__ import annotations

import subprocess
import tarfile

import pytest
import yaml
from build.small_image import compile_program, convert, make_native

from sconify_tasks.fspf.entries import Flag
from sconify_tasks.fspf.manifest import open_manifest


def manifest_of(place):
    service = yaml.safe_load(place.session.read_text())["services"][0]
    for layer in place.layers():
        with tarfile.open(layer) as tar:
            if "fspf/fs.fspf" in tar.getnames():
                stored = tar.extractfile("fspf/fs.fspf").read()
                return open_manifest(bytes.fromhex(service["fspf_key"]), bytes.fromhex(service["fspf_tag"]), stored)
    raise AssertionError("the image has no manifest")


@pytest.mark.parametrize("directory", ["/app", "/"])
def test_shared_objects_are_marked_also_where_they_are_encrypted(place, tmp_path, need, directory):
    """With --dlopen=0 only marked objects may be mapped: an unmarked libc would keep the program from starting."""
    program = compile_program(need("gcc"), tmp_path / "program")
    native = make_native(tmp_path / "native", program)
    needed = [
        word
        for word in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
        if word.startswith("/")
    ]
    for library in needed:
        target = native / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(open(library, "rb").read())  # noqa: PTH123, SIM115
        target.chmod(0o755)

    ended = convert(native, place, dir=(directory,), dlopen=0)

    assert ended.code == 0, ended.failures
    marked = {entry.path.decode() for entry in manifest_of(place).entries if entry.flags & Flag.CLOSURE}
    assert marked == set(needed)
