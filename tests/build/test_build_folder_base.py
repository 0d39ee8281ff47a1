"""`--base=dir:ROOTFS`: what lies in the folder is the lowest layer of the image that comes out."""

from __future__ import annotations

import tarfile

import pytest
from build.small_image import Recorder, convert, order_for, snapshot, world_of, write, write_config

from sconify_dodo.front import build_all
from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.references import open_source


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    write(folder / "etc" / "motd", b"of the base\n")
    write(folder / "usr" / "share" / "own", b"own\n")
    (folder / "usr" / "link").symlink_to("share/own")
    (folder / "usr" / "twin").hardlink_to(folder / "usr" / "share" / "own")
    return folder


def test_files_links_and_config_of_the_folder_are_in_the_image_below_ours(native, place, base):
    write_config(base, {"architecture": "amd64", "os": "linux", "config": {"Labels": {"of": "base"}}})
    assert convert(native, place, base=f"dir:{base}").code == 0
    image = OciSource(place.layout, "small")
    assert image.read(b"/etc/motd", limit=100) == b"of the base\n"
    assert image.read(b"/usr/twin", limit=100) == b"own\n"
    assert image.lstat(b"/usr/link").target == b"share/own"
    assert image.config.labels == {"of": "base"}
    with tarfile.open(place.layers()[0]) as lowest:
        assert {"etc/motd", "usr/share/own"} <= set(lowest.getnames())
    with tarfile.open(place.layers()[1]) as ours:
        assert "etc" not in ours.getnames()


def test_the_folders_layer_has_the_same_bytes_again_and_a_second_build_does_nothing(native, place, base, tmp_path):
    convert(native, place, base=f"dir:{base}")
    before = snapshot(place.layout)
    assert convert(native, place, base=f"dir:{base}").started == []
    assert snapshot(place.layout) == before
    (tmp_path / "other").mkdir()
    other = place.beside(tmp_path / "other")
    convert(native, other, base=f"dir:{base}")
    assert other.image_digest() == place.image_digest()


def test_a_changed_file_of_the_folder_is_delivered(native, place, base):
    convert(native, place, base=f"dir:{base}")
    write(base / "etc" / "motd", b"changed\n")
    assert convert(native, place, base=f"dir:{base}").code == 0
    assert OciSource(place.layout, "small").read(b"/etc/motd", limit=100) == b"changed\n"


def test_the_native_folder_itself_is_no_base(native, place):
    outcome = convert(native, place, base=f"dir:{native}")
    assert outcome.code == 2
    assert "contains the native image itself" in outcome.failures["image"]
    assert not place.layout.exists()


def test_a_protected_file_that_the_folder_publishes_anyway_is_counted(native, place, base):
    write(base / "public", (native / "app" / "secret").read_bytes())
    outcome = convert(native, place, base=f"dir:{base}")
    assert outcome.code == 0
    assert outcome.warnings == ["the base image publishes 1 of the protected files' contents anyway"]


@pytest.mark.parametrize("form", ["oci-archive:{}:1", "docker-archive:{}:small:1"])
def test_it_is_in_archives_too(native, place, base, tmp_path, form):
    to = form.format(tmp_path / "out.tar")
    assert convert(native, place, base=f"dir:{base}", to=to).code == 0
    image = open_source(to, docker=pytest.fail, default_oci_store=tmp_path)
    assert image.read(b"/etc/motd", limit=100) == b"of the base\n"


def test_it_is_in_an_engine_too(native, place, base, engine):
    name = engine.name("folder-base")
    with world_of(place, Recorder(), DOCKER_HOST=engine.host) as world:
        order = order_for(native, place, base=f"dir:{base}", to=f"docker:{name}")
        assert build_all(world, [order], jobs=1, keep_going=False, debug=True).code == 0
    image = DockerSource(lambda: engine.client, name)
    assert image.read(b"/etc/motd", limit=100) == b"of the base\n"
    image.close()
