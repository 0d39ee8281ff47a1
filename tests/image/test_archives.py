"""Images in a file: what we write, skopeo and engines read; what they write, we read; what is no such file, nobody."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from parts.images import built, file, folder, layer, symlink

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError, VerificationError
from sconify_tasks.image.docker_archive import DockerArchiveSource
from sconify_tasks.image.references import open_source
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sinks import Sinks
from sconify_tasks.image.validate import validate, violations

FORMS = ("oci-archive", "docker-archive")
COMPRESSIONS = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "xz-in-two-streams": lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]),
}


@pytest.fixture
def image(tmp_path):
    low = layer(tmp_path / "blobs", folder(b"/app"), file(b"/app/run", b"#!/bin/sh\n", mode=0o755), file(b"/app/old", b"old"))
    up = layer(tmp_path / "blobs", folder(b"/app"), file(b"/app/new", b"new"), symlink(b"/l", b"app"))
    return built(low, up, Env=["A=1"])


def no_engine():
    raise AssertionError("no engine is needed here")


def deliver(image, ref, base=None):
    sink, name = Sinks(docker=no_engine, default_oci_store=Path("/nowhere")).open(ref)
    delivered = sink.deliver(image, base or ScratchSource(), name)
    validate(ref)
    assert sink.present(name, delivered.identity)
    return delivered


def opened(ref, **options):
    return open_source(ref, docker=no_engine, default_oci_store=Path("/nowhere"), **options)


def contents(source):
    with source.walk([b"/"]) as stream:
        return {entry.path: content.read() if content else None for entry, content in stream}


def named(form, path, name="app:1"):
    return f"{form}:{path}:{name.rpartition(':')[2] if form == 'oci-archive' else name}"


def tar(members):
    """A tar of (name, bytes) and (name, target of a symlink) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                archive.addfile(info)
            else:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
    return out.getvalue()


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_delivered_reads_back_whatever_it_is_compressed_with(image, tmp_path, form, compression):
    path = tmp_path / "image.tar"
    deliver(image, named(form, path))
    path.write_bytes(COMPRESSIONS[compression](path.read_bytes()))
    for ref in (f"{form}:{path}", named(form, path)):
        validate(ref)
        source = opened(ref)
        assert source.diff_ids == tuple(item.diff_id for item in image.layers)
        assert contents(source) == {
            b"/": None, b"/app": None, b"/app/new": b"new", b"/app/old": b"old", b"/app/run": b"#!/bin/sh\n", b"/l": None,
        }  # fmt: skip
        with source.layer_files() as files:
            assert [item.path.read_bytes() for item in files] == [item.path.read_bytes() for item in image.layers]
        source.close()
        source.close()


@pytest.mark.parametrize("form", FORMS)
def test_equal_images_are_equal_bytes(image, tmp_path, form):
    first = deliver(image, named(form, tmp_path / "one.tar"))
    assert deliver(image, named(form, tmp_path / "two.tar")) == first
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert deliver(image, named(form, tmp_path / "one.tar")) == first
    assert listed(tmp_path) == ["blobs", "one.tar", "two.tar"]


@pytest.mark.parametrize("form", FORMS)
def test_skopeo_reads_what_is_written_and_writes_what_is_read(image, tmp_path, form, need):
    ref = named(form, tmp_path / "ours.tar")
    deliver(image, ref)
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", ref, f"oci:{tmp_path}/layout:t"], check=True, capture_output=True
    )
    validate(tmp_path / "layout", "t")
    theirs = named(form, tmp_path / "theirs.tar")
    subprocess.run([need("skopeo"), "copy", "--insecure-policy", ref, theirs], check=True, capture_output=True)
    validate(theirs)
    for other in (f"oci:{tmp_path}/layout:t", theirs):
        assert opened(other).identity == opened(ref).identity
        assert contents(opened(other)) == contents(opened(ref))


def test_an_engine_loads_it_under_its_name(image, tmp_path, engine):
    name = engine.name("archive")
    deliver(image, f"docker-archive:{tmp_path}/image.tar:{name}")
    engine.load(tmp_path / "image.tar")
    inspected = engine.client.api.inspect_image(name)
    assert inspected["RootFS"]["Layers"] == [str(item.diff_id) for item in image.layers]
    assert inspected["Config"]["Env"] == ["A=1"]


def test_what_an_engine_saves_is_read_two_images_and_shared_layers_included(engine, tmp_path):
    names = [engine.build(f"FROM scratch\nCOPY a /a\nCOPY a /b\nENV X={number}\n", {"a": b"same"}) for number in range(2)]
    path = tmp_path / "saved.tar"
    subprocess.run(["docker", "-H", engine.host, "save", "-o", path, *names], check=True, capture_output=True)
    validate(f"docker-archive:{path}")
    for number, name in enumerate(names):
        source = opened(f"docker-archive:{path}:{name}")
        assert source.config.env[-1] == f"X={number}"
        assert contents(source) == {b"/": None, b"/a": b"same", b"/b": b"same"}
    with pytest.raises(UsageError, match="holds 2 images") as several:
        opened(f"docker-archive:{path}")
    with pytest.raises(UnavailableError, match="no image of that name") as none:
        opened(f"docker-archive:{path}:never:1")
    assert all(name in error.value.hint for error in (several, none) for name in names)


def test_the_layout_of_engine_25_and_links_of_old_ones_are_read(image, tmp_path):
    low, up = (item.path.read_bytes() for item in image.layers)
    config_digest = hashlib.sha256(image.config).hexdigest()
    digests = [hashlib.sha256(data).hexdigest() for data in (gzip.compress(low, mtime=0), up)]
    new = [
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        (f"blobs/sha256/{digests[0]}", gzip.compress(low, mtime=0)),
        (f"blobs/sha256/{digests[1]}", up),
        (f"blobs/sha256/{config_digest}", image.config),
        ("manifest.json", json.dumps([{
            "Config": f"blobs/sha256/{config_digest}", "RepoTags": ["app:1"], "Layers": [f"blobs/sha256/{d}" for d in digests],
        }]).encode()),
    ]  # fmt: skip
    old = [
        ("aa/layer.tar", "../bb/layer.tar"),
        ("bb/VERSION", b"1.0"),
        ("bb/layer.tar", low),
        ("cc/layer.tar", up),
        (f"{config_digest}.json", image.config),
        ("repositories", b'{"app":{"1":"cc"}}'),
        ("manifest.json", json.dumps([{
            "Config": f"{config_digest}.json", "RepoTags": ["app:1"], "Layers": ["aa/layer.tar", "cc/layer.tar"],
        }]).encode()),
    ]  # fmt: skip
    for members in (new, old):
        (tmp_path / "image.tar").write_bytes(tar(members))
        validate(f"docker-archive:{tmp_path}/image.tar:app:1")
        source = opened(f"docker-archive:{tmp_path}/image.tar:docker.io/library/app:1")
        assert source.identity == DockerArchiveSource(tmp_path / "image.tar").identity
        assert contents(source)[b"/app/old"] == b"old"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("under", FORMS)
def test_an_archive_is_a_base(image, tmp_path, form, under):
    deliver(image, named(under, tmp_path / "base.tar"))
    base = opened(named(under, tmp_path / "base.tar"))
    ours = built(layer(tmp_path / "blobs", file(b"/ours", b"o")), base=base.diff_ids)
    deliver(ours, named(form, tmp_path / "out.tar"), base)
    result = opened(named(form, tmp_path / "out.tar"))
    assert contents(result) == contents(base) | {b"/ours": b"o"}
    deliver(ours, f"oci:{tmp_path}/layout:t", base)
    assert opened(f"oci:{tmp_path}/layout:t").identity == result.identity
    other = built(layer(tmp_path / "blobs", file(b"/other")), base=tuple(reversed(base.diff_ids)))
    with pytest.raises(VerificationError, match="does not have the layers"):
        deliver(other, named(form, tmp_path / "never.tar"), base)
    assert not (tmp_path / "never.tar").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_delivery_leaves_the_file_as_it_was_and_no_rubbish(image, tmp_path, form):
    ref = named(form, tmp_path / "out" / "image.tar")
    deliver(image, ref)
    before = (tmp_path / "out" / "image.tar").read_bytes()
    changed = layer(tmp_path / "blobs", file(b"/f", b"x" * 5000))
    changed.path.write_bytes(bytes(changed.size))
    with pytest.raises(VerificationError, match="is not the file it was"):
        deliver(built(changed), ref)
    assert (tmp_path / "out" / "image.tar").read_bytes() == before
    assert listed(tmp_path / "out") == ["image.tar"]
    (tmp_path / "out" / ".image.tar.sconify").write_bytes(b"of a killed writer" * 100000)
    deliver(image, ref)
    assert (tmp_path / "out" / "image.tar").read_bytes() == before
    assert listed(tmp_path / "out") == ["image.tar"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_holds_something_else_is_not_replaced(image, tmp_path, form):
    path = tmp_path / "image.tar"
    deliver(image, named(form, path))
    for content in (path.read_bytes(), b"a letter", b"", tar([("diary", b"dear diary")])):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is there already"):
            deliver(image, named(form, path, "other:2"))
        assert path.read_bytes() == content


@pytest.mark.parametrize("form", FORMS)
def test_presence_is_told_by_names_and_lengths(image, tmp_path, form):
    path = tmp_path / "image.tar"
    delivered = deliver(image, named(form, path))
    sink, name = Sinks(docker=no_engine, default_oci_store=tmp_path).open(named(form, path))
    assert not sink.present(name, "sha256:" + "0" * 64)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert not sink.present(name, delivered.identity)
    path.unlink()
    assert not sink.present(name, delivered.identity)
    deliver(built(image.layers[0]), named(form, path))
    assert not sink.present(name, delivered.identity)


@pytest.mark.parametrize("form", FORMS)
def test_a_byte_that_was_changed_is_found(image, tmp_path, form):
    path = tmp_path / "image.tar"
    deliver(image, named(form, path))
    content = path.read_bytes()
    at = content.index(b"#!/bin/sh")
    path.write_bytes(content[:at] + b"?" + content[at + 1 :])
    with pytest.raises(VerificationError):
        opened(f"{form}:{path}").lstat(b"/app")
    assert any(image.layers[0].diff_id[7:] in line for line in violations(f"{form}:{path}"))


HOSTILE = {
    "no manifest": ([("hello", b"x")], "has no"),
    "no list": ([("manifest.json", b"{}")], "not a list of images"),
    "not json": ([("manifest.json", b"[[[")], "damaged"),
    "deep": ([("manifest.json", b"[" * 100_000)], "damaged"),
    "config outside": ([("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]')], "has no"),
    "config is a link out": ([("manifest.json", b'[{"Config":"c","Layers":[]}]'), ("c", "/etc/passwd")], "has no c"),
    "links in a circle": ([("manifest.json", b'[{"Config":"c","Layers":[]}]'), ("c", "d"), ("d", "c")], "has no c"),
    "two manifests": ([("manifest.json", b"[]"), ("./manifest.json", b"[]")], "holds manifest.json twice"),
    "before 1.10": ([("repositories", b"{}")], "has no"),
    "a config with another digest": ([("manifest.json", b'[{"Config":"%s.json","Layers":[]}]' % (b"0" * 64)), ("0" * 64 + ".json", b"{}")], "promises"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_archives_that_lie_are_refused(tmp_path, case):
    members, message = HOSTILE[case]
    path = tmp_path / "bad.tar"
    path.write_bytes(tar(members))
    with pytest.raises(SconifyError, match=message):
        opened(f"docker-archive:{path}")
    assert violations(f"docker-archive:{path}")
    with pytest.raises(SconifyError):
        opened(f"oci-archive:{path}")
    assert violations(f"oci-archive:{path}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "content", [b"", b"x" * 2000, b"\x1f\x8b\x08rubbish", b"\xfd7zXZ\0rubbish", b"BZh9rubbish", b"\x28\xb5\x2f\xfdrub"]
)
def test_a_file_that_is_no_archive_is_one_clear_error(tmp_path, form, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SconifyError, match=str(tmp_path / "x")):
        opened(f"{form}:{tmp_path}/x")


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_that_breaks_off_is_damaged(image, tmp_path, form):
    deliver(image, named(form, tmp_path / "whole.tar"))
    content = (tmp_path / "whole.tar").read_bytes()
    for cut in (700, len(content) // 2, len(content) - 1100):
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        with pytest.raises(SconifyError):
            opened(f"{form}:{tmp_path}/cut.tar").lstat(b"/app")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_regular_file_is_refused_and_does_not_block(tmp_path, form):
    os.mkfifo(tmp_path / "pipe")
    for place in ("pipe", ".", "none", "none/x"):
        with pytest.raises(UnavailableError):
            opened(f"{form}:{tmp_path}/{place}")


@pytest.mark.parametrize(
    "ref", ["oci-archive::t", "oci-archive:x:bad tag", "docker-archive::r", "docker-archive:x:", "docker-archive:x:UPPER"]
)
def test_names_that_are_none_are_refused(ref):
    with pytest.raises(UsageError):
        opened(ref)


def test_the_wrong_transport_is_told(image, tmp_path):
    deliver(image, f"oci-archive:{tmp_path}/oci.tar:1")
    with pytest.raises(UsageError, match=r"no manifest\.json") as caught:
        opened(f"docker-archive:{tmp_path}/oci.tar")
    assert "oci-archive:" in caught.value.hint
    with pytest.raises(UsageError, match="not in files"):
        validate("docker:app:1")


def test_another_platform_is_refused_with_what_is_there(image, tmp_path):
    for form in FORMS:
        deliver(image, named(form, tmp_path / f"{form}.tar"))
        with pytest.raises(UnavailableError, match="nothing for linux/arm64") as caught:
            opened(f"{form}:{tmp_path}/{form}.tar", platform="linux/arm64")
        assert "linux/amd64" in caught.value.hint
