"""Whole builds from and into archives: they deliver, a second one does nothing, and what was damaged comes back."""

from __future__ import annotations

import subprocess

import pytest
from build.small_image import convert, snapshot

from sconify_tasks.image.validate import validate


@pytest.mark.parametrize("form", ["oci-archive:{}:1", "docker-archive:{}:small:1"])
def test_a_build_into_an_archive_is_done_once_and_healed(native, place, tmp_path, form):
    path = tmp_path / "out.tar"
    to = form.format(path)
    first = convert(native, place, to=to)
    assert (first.code, path.is_file()) == (0, True)
    content, before = path.read_bytes(), snapshot(path)
    assert convert(native, place, to=to).code == 0
    assert snapshot(path) == before
    path.unlink()
    assert convert(native, place, to=to).code == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize("form", ["oci-archive:{}:1", "docker-archive:{}:app:1"])
def test_an_archive_is_a_native_image(native, place, tmp_path, need, form):
    tar = tmp_path / "rootfs.tar"
    subprocess.run(["tar", "-C", native, "-cf", tar, "."], check=True)
    umoci = need("umoci")
    layout = tmp_path / "layout"
    for command in (
        [umoci, "init", "--layout", layout],
        [umoci, "new", "--image", f"{layout}:1"],
        [umoci, "raw", "add-layer", "--image", f"{layout}:1", tar],
        [umoci, "config", "--image", f"{layout}:1", "--config.cmd", "/bin/prog"],
        [need("skopeo"), "copy", "--insecure-policy", f"oci:{layout}:1", form.format(tmp_path / "native.tar")],
    ):
        subprocess.run(command, check=True, capture_output=True)
    assert convert(native, place, **{"from": form.format(tmp_path / "native.tar")}).code == 0
    validate(place.layout, "small")
