"""An engine that keeps its images in containerd: the Id is a manifest's digest, `docker save` gives an OCI layout."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time

import pytest
from parts.images import built, file, folder, layer

from sconify_tasks.image.compose import compose_config
from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.listing import list_images
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.references import open_source
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_docker import DockerSink
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.validate import validate


def rootfs():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (("app/run", b"#!/bin/sh\n"), ("app/data", b"d" * 3000)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_000_000_000
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def native(containerd_engine):
    name = containerd_engine.import_rootfs(rootfs(), changes=["ENV A=1", 'ENTRYPOINT ["/app/run"]'])
    source = DockerSource(lambda: containerd_engine.client, name)
    yield name, source
    source.close()


def contents(source):
    with source.walk([b"/app"]) as stream:
        return {entry.path: content.read() if content else None for entry, content in stream}


def on_top(source, *layers):
    config = compose_config(
        base=source.config, native=source.config, entrypoint="/app/run", env=["SCONE_HEAP=1G"], base_diff_ids=source.diff_ids,
        layer_diff_ids=[item.diff_id for item in layers], epoch=0,
    )  # fmt: skip
    return BuiltImage(base_diff_ids=source.diff_ids, layers=tuple(layers), config=config)


def test_its_id_is_no_config_digest_and_identities_are_the_same_as_elsewhere(native, engine):
    _, source = native
    classic = DockerSource(
        lambda: engine.client, engine.import_rootfs(rootfs(), changes=["ENV A=1", 'ENTRYPOINT ["/app/run"]'])
    )
    assert source.diff_ids == classic.diff_ids
    assert source.identity == classic.identity
    assert source.engine_id != classic.engine_id
    assert contents(source) == contents(classic) == {b"/app": None, b"/app/run": b"#!/bin/sh\n", b"/app/data": b"d" * 3000}
    classic.close()


def test_the_listing_without_the_sdk_says_what_inspect_says(native, containerd_engine):
    name, source = native
    assert list_images(containerd_engine.host)[name] == source.engine_id


def test_what_it_saves_is_an_oci_layout_and_both_names_of_it_are_read(native, containerd_engine, tmp_path):
    name, source = native
    subprocess.run(["docker", "-H", containerd_engine.host, "save", "-o", tmp_path / "saved.tar", name], check=True)
    for ref in (f"oci-archive:{tmp_path}/saved.tar", f"docker-archive:{tmp_path}/saved.tar:{name}"):
        validate(ref)
        saved = open_source(ref, docker=lambda: containerd_engine.client, default_oci_store=tmp_path)
        assert saved.identity == source.identity
        assert contents(saved) == contents(source)


def test_its_layers_are_exported(native, tmp_path):
    _, source = native
    image = on_top(source, layer(tmp_path, file(b"/app/new", b"new")))
    OciSink(tmp_path / "oci").deliver(image, source, "t")
    validate(tmp_path / "oci", "t")
    assert contents(OciSource(tmp_path / "oci", "t")) == contents(source) | {b"/app/new": b"new"}


def test_an_image_on_a_base_that_it_has_is_delivered_and_recognised(native, containerd_engine, tmp_path):
    _, source = native
    image = on_top(source, layer(tmp_path, folder(b"/app"), file(b"/app/new-%d" % time.time_ns(), b"new")))
    name = containerd_engine.name("out")
    delivered = DockerSink(containerd_engine.client).deliver(image, source, name)
    assert DockerSink(containerd_engine.client).present(name, delivered.identity)
    assert delivered.identity != delivered.config_digest
    assert list_images(containerd_engine.host)[name] == delivered.identity
    assert DockerSink(containerd_engine.client).deliver(image, source, name) == delivered
    result = DockerSource(lambda: containerd_engine.client, name)
    assert result.diff_ids == (*source.diff_ids, image.layers[0].diff_id)
    assert b"/app/run" in contents(result)
    result.close()
    assert not [image for image in containerd_engine.client.api.images(all=True) if not image.get("RepoTags")]


def test_an_image_on_a_base_that_it_lacks_is_delivered(containerd_engine, tmp_path):
    low = built(layer(tmp_path, folder(b"/app"), file(b"/app/only-%d" % time.time_ns(), b"low")))
    OciSink(tmp_path / "oci").deliver(low, ScratchSource(), "base")
    base = OciSource(tmp_path / "oci", "base")
    name = containerd_engine.name("full")
    DockerSink(containerd_engine.client).deliver(on_top(base, layer(tmp_path, file(b"/app/run", b"up"))), base, name)
    result = DockerSource(lambda: containerd_engine.client, name)
    assert contents(result) == contents(base) | {b"/app/run": b"up"}
    result.close()
