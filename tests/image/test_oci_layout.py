"""OCI layouts: what our sink writes, skopeo and umoci read; what they write, our source reads; what was tampered with, nobody."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import zstandard
from parts.images import built, file, folder, layer, symlink

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError, VerificationError
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.search import search_base, search_built
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.validate import validate


@pytest.fixture
def image(tmp_path):
    low = layer(tmp_path / "blobs", folder(b"/app"), file(b"/app/run", b"#!/bin/sh\n", mode=0o755), file(b"/app/old", b"old"))
    up = layer(tmp_path / "blobs", folder(b"/app"), file(b"/app/new", b"new"), symlink(b"/l", b"app"))
    return built(low, up, Env=["A=1"], Labels={"x": "y"})


@pytest.fixture
def layout(tmp_path, image):
    OciSink(tmp_path / "oci").deliver(image, ScratchSource(), "1.0")
    return tmp_path / "oci"


def rewrite(layout, change, *, compress=None):
    """Make the layout's manifest over, consistently: digests are right, the content is what `change` made of it."""
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs" / "sha256"

    def put(data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    if compress:
        suffix, function = compress
        for item in manifest["layers"]:
            item.update(put(function((blobs / item["digest"][7:]).read_bytes())), mediaType=item["mediaType"] + suffix)
    change(manifest, index)
    index["manifests"][0].update(put(json.dumps(manifest).encode()))
    (layout / "index.json").write_text(json.dumps(index))


def nothing(manifest, index):
    pass


def test_what_is_delivered_reads_back(layout, image):
    validate(layout, "1.0")
    source = OciSource(layout, "1.0")
    assert source.diff_ids == tuple(item.diff_id for item in image.layers)
    assert (source.config.env, source.config.entrypoint) == (("A=1",), ("/app/run",))
    with source.walk([b"/app"]) as stream:
        found = {entry.path: content.read() if content else None for entry, content in stream}
    assert found == {b"/app": None, b"/app/new": b"new", b"/app/old": b"old", b"/app/run": b"#!/bin/sh\n"}
    assert source.read(b"/app/old", limit=10) == b"old"
    assert source.lstat(b"/l").target == b"app"
    assert source.lstat(b"/l/new") is None
    assert source.listdir(b"/") == [b"app", b"l"]
    for path, limit in ((b"/app", 10), (b"/none", 10), (b"/app/run", 3)):
        with pytest.raises(UsageError):
            source.read(path, limit=limit)


def test_skopeo_and_umoci_accept_it(layout, tmp_path, need):
    inspected = json.loads(
        subprocess.run([need("skopeo"), "inspect", "--config", f"oci:{layout}:1.0"], check=True, capture_output=True).stdout
    )
    assert inspected["config"]["Env"] == ["A=1"]
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", f"oci:{layout}:1.0", f"dir:{tmp_path}/dir"],
        check=True,
        capture_output=True,
    )
    listed = json.loads(
        subprocess.run([need("umoci"), "stat", "--json", "--image", f"{layout}:1.0"], check=True, capture_output=True).stdout
    )
    assert listed is not None
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run(
        [need("umoci"), "unpack", *rootless, "--image", f"{layout}:1.0", tmp_path / "bundle"], check=True, capture_output=True
    )
    assert (tmp_path / "bundle" / "rootfs" / "app" / "new").read_bytes() == b"new"


def test_what_skopeo_and_umoci_write_is_read(layout, tmp_path, need):
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", "--dest-compress-format=zstd", f"oci:{layout}:1.0", f"oci:{tmp_path}/two:t"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert OciSource(tmp_path / "two", "t").identity == OciSource(layout, "1.0").identity
    extra = tmp_path / "extra"
    extra.write_bytes(b"inserted")
    umoci = need("umoci")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run(
        [umoci, "insert", *rootless, "--image", f"{tmp_path}/two:t", extra, "/app/extra"], check=True, capture_output=True
    )
    subprocess.run(
        [umoci, "insert", *rootless, "--whiteout", "--image", f"{tmp_path}/two:t", "/app/old"], check=True, capture_output=True
    )
    source = OciSource(tmp_path / "two", "t")
    assert source.read(b"/app/extra", limit=100) == b"inserted"
    assert source.lstat(b"/app/old") is None
    validate(tmp_path / "two", "t")


@pytest.mark.parametrize("compress", [("+gzip", gzip.compress), ("+zstd", zstandard.compress)])
def test_compressed_layers_are_read_verified_and_kept_as_they_are(layout, image, tmp_path, compress):
    plain = OciSource(layout, "1.0").identity
    rewrite(layout, nothing, compress=compress)
    validate(layout, "1.0")
    base = OciSource(layout, "1.0")
    assert base.identity == plain
    assert base.read(b"/app/new", limit=9) == b"new"
    with base.layer_files() as files:
        assert [(item.diff_id, item.path.read_bytes()) for item in files] == [
            (item.diff_id, item.path.read_bytes()) for item in image.layers
        ]
    ours = layer(tmp_path / "blobs", file(b"/ours", b"o"))
    OciSink(tmp_path / "out").deliver(built(ours, base=base.diff_ids), base, "t")
    validate(tmp_path / "out", "t")
    assert [blob.digest for blob in OciSource(tmp_path / "out", "t").layers] == [
        *[blob.digest for blob in base.layers],
        ours.diff_id,
    ]


def test_other_tags_stay_and_an_equal_delivery_changes_nothing(layout, image, tmp_path):
    sink = OciSink(layout)
    other = built(layer(tmp_path / "blobs", file(b"/other")))
    first = sink.deliver(other, ScratchSource(), "2.0")
    before = {path: path.stat().st_mtime_ns for path in layout.rglob("*") if path.is_file() and path.name != ".sconify.lock"}
    assert sink.deliver(other, ScratchSource(), "2.0") == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for tag in ("1.0", "2.0"):
        validate(layout, tag)
    sink.deliver(image, ScratchSource(), "2.0")
    assert OciSource(layout, "2.0").identity == OciSource(layout, "1.0").identity


def test_presence_is_told_by_manifest_and_blobs(layout, image):
    sink = OciSink(layout)
    delivered = sink.deliver(image, ScratchSource(), "1.0")
    assert delivered.manifest_digest == delivered.identity
    assert sink.present("1.0", delivered.identity)
    assert not sink.present("2.0", delivered.identity)
    assert not sink.present("1.0", "sha256:" + "0" * 64)
    assert not OciSink(layout / "nope").present("1.0", delivered.identity)
    (layout / "blobs" / "sha256" / image.layers[0].diff_id[7:]).unlink()
    assert not sink.present("1.0", delivered.identity)


def test_a_failed_delivery_leaves_the_tag_and_no_rubbish(layout, image, tmp_path):
    before = (layout / "index.json").read_bytes()
    gone = layer(tmp_path / "blobs", file(b"/gone"))
    gone.path.write_bytes(b"shorter")
    with pytest.raises(SconifyError):
        OciSink(layout).deliver(built(gone), ScratchSource(), "1.0")
    assert (layout / "index.json").read_bytes() == before
    (layout / "blobs" / "sha256" / ".sconify-dead").write_bytes(b"half")
    OciSink(layout).deliver(image, ScratchSource(), "1.0")
    assert not list(layout.rglob(".sconify-*"))


def test_writers_at_the_same_time_keep_each_others_tags(tmp_path, image):
    sink = OciSink(tmp_path / "oci")
    threads = [threading.Thread(target=sink.deliver, args=(image, ScratchSource(), f"t{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        validate(tmp_path / "oci", f"t{number}")


def test_a_killed_writer_leaves_a_valid_layout(tmp_path):
    code = (
        "import pathlib, sys; from parts.images import *; from sconify_tasks.image.sink_oci import OciSink;"
        "from sconify_tasks.image.scratch import ScratchSource; here = pathlib.Path(sys.argv[1]); print('ready', flush=True)\n"
        "for n in range(10**6):\n"
        "    image = built(layer(here / 'blobs', file(b'/f', b'%d' % n * 100000)))\n"
        "    OciSink(here / 'oci').deliver(image, ScratchSource(), f't{n % 5}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, env=environment)
        child.stdout.readline()
        while not (tmp_path / "oci" / "index.json").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        child.kill()
        child.wait()
        child.stdout.close()
        index = json.loads((tmp_path / "oci" / "index.json").read_text())
        tags = [item["annotations"]["org.opencontainers.image.ref.name"] for item in index["manifests"]]
        assert tags
        for tag in tags:
            validate(tmp_path / "oci", tag)
    OciSink(tmp_path / "oci").deliver(built(layer(tmp_path / "blobs", file(b"/last"))), ScratchSource(), "last")
    assert not list((tmp_path / "oci").rglob(".sconify-*"))


def test_a_base_with_other_layers_is_refused(layout, image, tmp_path):
    with pytest.raises(VerificationError, match="does not have the layers"):
        OciSink(tmp_path / "out").deliver(
            BuiltImage(base_diff_ids=(image.layers[1].diff_id,), layers=(), config=image.config), OciSource(layout), "t"
        )


def test_a_blob_that_was_changed_is_refused(layout, image):
    blob = layout / "blobs" / "sha256" / image.layers[0].diff_id[7:]
    data = bytearray(blob.read_bytes())
    data[600] ^= 1
    blob.unlink()
    blob.write_bytes(data)
    with pytest.raises(VerificationError, match="bytes its digest promises"):
        OciSource(layout, "1.0").lstat(b"/app")
    with pytest.raises(VerificationError, match="bytes its digest promises"):
        OciSink(layout.with_name("copy")).deliver(
            built(base=tuple(item.diff_id for item in image.layers)), OciSource(layout), "t"
        )
    with pytest.raises(VerificationError, match=r"not valid:\nblob sha256:"):
        validate(layout, "1.0")


def test_a_layer_that_unpacks_to_something_else_is_refused(layout):
    rewrite(layout, nothing, compress=("+gzip", lambda data: gzip.compress(data + bytes(512))))
    with pytest.raises(VerificationError, match="unpacks to"):
        OciSource(layout, "1.0").lstat(b"/app")


@pytest.mark.delivers_damage
def test_data_behind_the_end_of_an_archive_is_found(tmp_path):
    from sconify_tasks.image.model import Layer, Sha256

    good = layer(tmp_path, file(b"/a", b"x"))
    data = good.path.read_bytes() + b"hidden".ljust(512, b"\0")
    (tmp_path / "bad").write_bytes(data)
    bad = Layer(diff_id=Sha256("sha256:" + hashlib.sha256(data).hexdigest()), size=len(data), path=tmp_path / "bad")
    OciSink(tmp_path / "oci").deliver(built(bad), ScratchSource(), "t")
    with pytest.raises(VerificationError, match="hides data"):
        validate(tmp_path / "oci", "t")


def test_all_violations_are_listed(layout, image):
    for item in image.layers:
        blob = layout / "blobs" / "sha256" / item.diff_id[7:]
        blob.unlink()
        blob.write_bytes(bytes(item.size))
    with pytest.raises(VerificationError) as caught:
        validate(layout, "1.0")
    assert all(item.diff_id in caught.value.message for item in image.layers)


def bad_layer_type(manifest, index):
    manifest["layers"][0]["mediaType"] += "+encrypted"


def missing_layer(manifest, index):
    manifest["layers"].pop()


def bad_digest(manifest, index):
    manifest["config"]["digest"] = "sha256:../../../../etc/passwd"


def negative_size(manifest, index):
    manifest["config"]["size"] = -1


@pytest.mark.parametrize("change", [bad_layer_type, missing_layer, bad_digest, negative_size])
def test_manifests_that_lie_are_refused(layout, change):
    rewrite(layout, change)
    with pytest.raises(SconifyError):
        OciSource(layout, "1.0")
    with pytest.raises(VerificationError):
        validate(layout, "1.0")


def test_the_platform_is_chosen_through_nested_indexes(layout):
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    other = dict(entry, platform={"os": "linux", "architecture": "arm64"}, digest="sha256:" + "1" * 64)
    nested = json.dumps({"schemaVersion": 2, "manifests": [other, entry]}).encode()
    digest = hashlib.sha256(nested).hexdigest()
    (blobs / digest).write_bytes(nested)
    media_type = "application/vnd.oci.image.index.v1+json"
    index["manifests"] = [
        {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(nested), "annotations": entry["annotations"]}
    ]
    (layout / "index.json").write_text(json.dumps(index))
    assert OciSource(layout, "1.0").config.env == ("A=1",)
    with pytest.raises(UnavailableError, match="nothing for linux/s390x"):
        OciSource(layout, "1.0", platform="linux/s390x")


def test_an_index_that_holds_itself_ends(layout):
    index = json.loads((layout / "index.json").read_text())
    nested = b'{"manifests": [%s]}'
    media_type = "application/vnd.oci.image.index.v1+json"
    inner = b"[]"
    for _ in range(8):
        data = nested % inner if inner != b"[]" else b'{"manifests": []}'
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(data)
        inner = json.dumps({"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}).encode()
    index["manifests"] = [json.loads(inner)]
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="nested too deeply"):
        OciSource(layout)


def test_a_tag_must_be_named_where_there_are_several(layout, image):
    assert OciSource(layout).identity
    OciSink(layout).deliver(built(image.layers[0]), ScratchSource(), "2.0")
    with pytest.raises(UsageError, match="holds 2 tagged images"):
        OciSource(layout)
    with pytest.raises(UnavailableError, match="no image of that tag") as caught:
        OciSource(layout, "3.0")
    assert "1.0, 2.0" in caught.value.hint


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_a_folder_that_is_no_layout_is_unavailable_or_damaged(layout, name):
    (layout / name).write_text("[1]")
    with pytest.raises(UsageError):
        OciSource(layout)
    (layout / name).unlink()
    with pytest.raises(UnavailableError, match="No such file"):
        OciSource(layout)


def test_an_image_for_another_platform_is_refused(layout):
    with pytest.raises(SconifyError, match=r"linux/(amd|arm)64"):
        OciSource(layout, platform="linux/arm64")


def test_the_search_sees_what_upper_layers_hide(layout, image, tmp_path):
    hide = layer(tmp_path / "blobs", file(b"/app/old", b"harmless"))
    full = built(*image.layers, hide)
    found = [(item.entry.path, item.content.read()) for item in search_built(full) if item.content]
    assert (b"/app/old", b"old") in found
    assert (b"/app/old", b"harmless") in found
    assert (b"/app/old", b"old") in [
        (item.entry.path, item.content.read()) for item in search_base(OciSource(layout)) if item.content
    ]


def test_a_folder_as_a_base_of_scratch_gives_a_valid_image(tmp_path):
    from sconify_tasks.image.rootfs import RootfsSource

    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "f").write_bytes(b"1")
    source = RootfsSource(tmp_path / "root")
    with source.layer_files() as files:
        OciSink(tmp_path / "oci").deliver(built(*files), ScratchSource(), "t")
    validate(tmp_path / "oci", "t")
    assert OciSource(tmp_path / "oci", "t").read(b"/f", limit=9) == b"1"
