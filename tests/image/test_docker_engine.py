"""A real Docker Engine as source and sink."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import docker as sdk
import pytest
from parts.images import built, file, folder, layer, layer_bytes, symlink

from sconify_tasks.errors import UnavailableError, UsageError, VerificationError
from sconify_tasks.image import temporary
from sconify_tasks.image.archived import ContainerArchives
from sconify_tasks.image.compose import compose_config
from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.references import open_source
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.search import search_base
from sconify_tasks.image.sink_docker import DockerSink
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.sinks import Sinks
from sconify_tasks.image.unpacked import LayerFolders
from sconify_tasks.image.validate import validate

ITEMS = (
    folder(b"/app", 0o750, uid=7, gid=8, mtime=10**18),
    file(b"/app/a", b"content", mode=0o640, uid=5, gid=6, mtime=10**18),
    symlink(b"/app/leak", b"../../etc/passwd"),
    file(b"/app/caf\xc3\xa9", b"x"),
    file(b"/app/latin-\xe9", b"y"),
    file(b"/app/" + b"n" * 200, b"long"),
    folder(b"/odd-\xff", 0o711),
    file(b"/odd-\xff/in", b"odd"),
    (Entry(path=b"/odd-\xff/link", kind=Kind.FILE, size=3, hardlink=b"/odd-\xff/in"), None),
    (Entry(path=b"/app/z", kind=Kind.FILE, size=7, hardlink=b"/app/a"), None),
    symlink(b"/lib", b"usr/lib"),
    folder(b"/usr"),
    folder(b"/usr/lib"),
    file(b"/usr/lib/x", b"library" * 1000),
    (Entry(path=b"/usr/again", kind=Kind.FILE, size=7, hardlink=b"/app/a"), None),
)
CHANGES = ["ENV A=1", 'CMD ["/app/a"]', "LABEL l=v", "EXPOSE 80", "WORKDIR /not/there", "USER 5"]


@pytest.fixture(scope="module")
def native(engine):
    return engine.import_rootfs(layer_bytes(*ITEMS), changes=CHANGES)


@pytest.fixture(params=["archives", "folders"])
def source(request, engine, native):
    source = DockerSource(lambda: engine.client, native, host=engine.host if request.param == "folders" else None)
    assert isinstance(source._opened(), LayerFolders) == (request.param == "folders")
    yield source
    source.close()


def ours(engine):
    return [found["Id"] for found in engine.client.api.containers(all=True, filters={"label": temporary.LABEL})]


def of_this_process(engine):
    """Other tests may use the engine at the same time."""
    label = f"{temporary.LABEL}={temporary._owner(os.getpid())}"
    return {found["Id"] for found in engine.client.api.containers(all=True, filters={"label": label})}


def test_the_config_and_layers_are_inspected_without_a_container(engine, source):
    before = of_this_process(engine)
    assert (
        source.config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1")
        or "A=1" in source.config.env
    )
    assert (source.config.cmd, source.config.user, source.config.exposed_ports) == (("/app/a",), "5", ("80/tcp",))
    assert len(source.diff_ids) == 1
    assert source.identity
    assert of_this_process(engine) == before


def test_a_walk_gives_what_the_layer_holds(source):
    with source.walk([b"/app"]) as stream:
        found = {entry.path: (entry, content.read() if content else None) for entry, content in stream}
    expected = {entry.path: content for entry, content in ITEMS if entry.path.startswith(b"/app")}
    assert found.keys() == expected.keys()
    assert {path: content for path, (entry, content) in found.items() if not entry.hardlink and path != b"/app/a"} == {
        path: content for path, content in expected.items() if path not in (b"/app/a", b"/app/z")
    }
    assert found[b"/app"][0] == ITEMS[0][0]
    assert {found[b"/app/a"][1], found[b"/app/z"][1]} == {b"content"}
    assert {found[b"/app/a"][0].hardlink, found[b"/app/z"][0].hardlink} == {b"", b"/app/a"}
    assert found[b"/app/leak"][0].target == b"../../etc/passwd"
    assert all(entry.size == 7 for entry in (found[b"/app/a"][0], found[b"/app/z"][0]))


def test_single_paths_are_looked_up_without_following_links(source):
    assert source.lstat(b"/app/a") == ITEMS[1][0]
    assert source.lstat(b"/app/z") == Entry(path=b"/app/z", kind=Kind.FILE, mode=0o640, uid=5, gid=6, mtime=10**18, size=7)
    assert source.lstat(b"/app") == ITEMS[0][0]
    assert source.lstat(b"/lib").target == b"usr/lib"
    assert source.lstat(b"/").kind is Kind.DIR
    for path in (b"/lib/x", b"/app/a/x", b"/nope", b"/nope/x", b"/.dockerenv", b"/etc/hosts", b"/not/there"):
        assert source.lstat(path) is None
    assert source.read(b"/app/latin-\xe9", limit=1) == b"y"
    assert (source.read(b"/odd-\xff/in", limit=3), source.read(b"/odd-\xff/link", limit=3)) == (b"odd", b"odd")
    assert source.lstat(b"/odd-\xff").mode == 0o711
    assert source.lstat(b"/odd-\xff/link").size == 3
    assert source.read(b"/usr/lib/x", limit=7000) == b"library" * 1000
    for path, limit in ((b"/lib/x", 10**6), (b"/app", 10), (b"/app/leak", 100), (b"/usr/lib/x", 6999)):
        with pytest.raises(UsageError):
            source.read(path, limit=limit)
    with pytest.raises(UsageError, match="/nope does not exist"), source.walk([b"/nope"]) as stream:
        list(stream)


def test_a_hundred_questions_are_one_stream(engine, native, monkeypatch):
    source = ContainerArchives(lambda: engine.client, engine.client.api.inspect_image(native)["Id"], name=native, size=0)
    asked = []
    real = source._archive
    monkeypatch.setattr(source, "_archive", lambda path: asked.append(path) or real(path))
    for number in range(100):
        assert source.lstat(b"/app/no-%d" % number) is None
    assert source.lstat(b"/app/z").size == 7
    assert len(asked) <= 7
    assert source.listdir(b"/app")[0] == b"a"
    assert source.listdir(b"/") == sorted(set(source.listdir(b"/")))
    source.close()


def test_the_engine_and_a_layout_show_the_same_image(engine, native, source, tmp_path, need):
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", "--src-daemon-host", engine.host, f"docker-daemon:{native}", f"oci:{tmp_path}/oci:t"],
        check=True, capture_output=True,
    )  # fmt: skip
    layout = OciSource(tmp_path / "oci", "t")
    assert layout.identity == source.identity
    with (
        layout.walk([b"/app", b"/usr", b"/lib", b"/odd-\xff"]) as one,
        source.walk([b"/app", b"/usr", b"/lib", b"/odd-\xff"]) as two,
    ):
        first = {entry.path: (entry, content.read() if content else None) for entry, content in one}
        second = {entry.path: (entry, content.read() if content else None) for entry, content in two}

    def unlinked(found):
        from msgspec.structs import replace

        return {path: (replace(entry, hardlink=b""), content) for path, (entry, content) in found.items()}

    assert unlinked(first) == unlinked(second)


def test_an_empty_image_without_a_command_can_be_read(engine):
    name = engine.import_rootfs(layer_bytes(file(b"/f", b"1")))
    source = DockerSource(lambda: engine.client, name)
    assert source.read(b"/f", limit=1) == b"1"
    with source.walk([b"/"]) as stream:
        assert {entry.path for entry, _ in stream} <= {b"/", b"/f", b"/dev", b"/etc"}
    source.close()


def test_volumes_of_the_image_are_part_of_it_and_leave_nothing(engine):
    name = engine.import_rootfs(layer_bytes(folder(b"/data"), file(b"/data/f", b"v")), changes=["VOLUME /data"])
    before = {volume["Name"] for volume in engine.client.api.volumes()["Volumes"] or []}
    source = DockerSource(lambda: engine.client, name)
    assert source.read(b"/data/f", limit=1) == b"v"
    source.close()
    assert {volume["Name"] for volume in engine.client.api.volumes()["Volumes"] or []} <= before


def test_closing_removes_the_container(engine, native):
    before = of_this_process(engine)
    source = DockerSource(lambda: engine.client, native)
    source.lstat(b"/app")
    source.lstat(b"/usr")
    made = of_this_process(engine) - before
    assert len(made) == 1
    source.close()
    source.close()
    assert not made & of_this_process(engine)


def test_a_dead_runs_container_is_swept_and_a_living_ones_is_not(engine, native):
    image = engine.client.api.inspect_image(native)["Id"]
    code = (
        "import docker, sys; from sconify_tasks.image.temporary import new_container;"
        f"print(new_container(docker.DockerClient(base_url={engine.host!r}), {image!r})); sys.stdout.flush(); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    container = child.stdout.readline().decode().strip()
    try:
        temporary.sweep(engine.client)
        assert container in ours(engine)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    temporary.sweep(engine.client)
    assert container not in ours(engine)


def test_owners_that_cannot_be_seen_are_given_an_hour():
    assert not temporary._dead("other-boot/1/2/3", 3599 * 10**9)
    assert temporary._dead("other-boot/1/2/3", 3601 * 10**9)
    assert not temporary._dead("nonsense", 0)
    assert not temporary._dead(temporary._owner(os.getpid()), 10**18)


def test_layers_are_exported_and_told_by_their_digest(engine, source):
    with source.layer_files() as files:
        assert [item.diff_id for item in files] == list(source.diff_ids)
    found = {item.entry.path: item.content.read() if item.content else None for item in search_base(source)}
    assert found[b"/usr/lib/x"] == b"library" * 1000


def test_a_missing_image_is_named(engine):
    with pytest.raises(UnavailableError, match="no-such-image") as caught:
        DockerSource(lambda: engine.client, "no-such-image:1")
    assert caught.value.exit_code == 3
    assert caught.value.message.lower().count("no such image") == 1
    assert "pull or build" in caught.value.hint


def sconified(source, *layers):
    config = compose_config(
        base=source.config, native=source.config, entrypoint="/app/run", env=["SCONE_HEAP=1G"], base_diff_ids=source.diff_ids,
        layer_diff_ids=[item.diff_id for item in layers], epoch=0,
    )  # fmt: skip
    return BuiltImage(base_diff_ids=source.diff_ids, layers=tuple(layers), config=config)


def test_a_built_image_is_loaded_thin_and_runs(engine, debian_rootfs, tmp_path):
    base = DockerSource(lambda: engine.client, engine.import_rootfs(debian_rootfs))
    image = sconified(
        base, layer(tmp_path, folder(b"/app"), file(b"/app/run", b"#!/bin/sh\necho $SCONE_HEAP $0\n", mode=0o755))
    )
    name = engine.name("out")
    sink = DockerSink(engine.client)
    base.layer_files = None  # an export would be the full archive
    delivered = sink.deliver(image, base, name)
    output = engine.client.containers.run(name, remove=True, network_disabled=True)
    assert output == b"1G /app/run\n"
    assert sink.present(name, delivered.identity)
    assert DockerSink(engine.client).present(name, delivered.identity)
    assert not sink.present(name, "sha256:" + "0" * 64)
    assert not sink.present("never/was:1", delivered.identity)
    assert DockerSink(engine.client).deliver(image, base, name) == delivered
    engine.client.api.remove_image(name, force=True)
    assert not DockerSink(engine.client).present(name, delivered.identity)


def test_one_listing_answers_for_many_names(engine, monkeypatch):
    sink = DockerSink(engine.client)
    calls = []
    real = engine.client.api.images
    monkeypatch.setattr(engine.client.api, "images", lambda: calls.append(1) or real())
    for number in range(50):
        sink.present(f"x:{number}", "sha256:")
    assert calls == [1]


def test_a_base_that_the_engine_lacks_goes_into_a_full_archive(engine, tmp_path):
    low = built(layer(tmp_path, folder(b"/app"), file(b"/app/only-%d" % time.time_ns(), b"low")))
    OciSink(tmp_path / "oci").deliver(low, ScratchSource(), "base")
    base = OciSource(tmp_path / "oci", "base")
    image = sconified(base, layer(tmp_path, file(b"/app/run", b"up", mode=0o755)))
    name = engine.name("full")
    DockerSink(engine.client).deliver(image, base, name)
    result = DockerSource(lambda: engine.client, name)
    assert result.diff_ids == (*base.diff_ids, image.layers[0].diff_id)
    assert result.read(b"/app/run", limit=2) == b"up"
    result.close()


def test_an_engine_that_refuses_thin_archives_gets_a_full_one(engine, source, tmp_path, monkeypatch):
    sink = DockerSink(engine.client)
    real = sink._load
    carried = []

    def picky(built, layers):
        carried.append(len(layers))
        if len(layers) == 1:
            raise sdk.errors.APIError("no such layer")
        return real(built, layers)

    monkeypatch.setattr(sink, "_load", picky)
    image = sconified(source, layer(tmp_path, file(b"/app/run", b"up")))
    sink.deliver(image, source, engine.name("picky"))
    assert carried == [1, 2]


def test_an_image_that_is_not_what_was_sent_gets_no_name(engine, source, tmp_path, monkeypatch):
    good = layer(tmp_path, file(b"/app/run", b"up-%d" % time.time_ns()))
    image = sconified(source, good)
    other = engine.client.api.inspect_image(source._reference)["Id"]
    sink, name = DockerSink(engine.client), engine.name("wrong")
    monkeypatch.setattr(sink, "_load", lambda built, layers: other)
    with pytest.raises(VerificationError, match="another image"):
        sink.deliver(image, source, name)
    assert not DockerSink(engine.client).present(name, other)


def test_a_damaged_layer_is_refused_by_engine_or_sink(engine, tmp_path):
    bad = layer(tmp_path, file(b"/f", b"x" * 5000))
    bad.path.write_bytes(b"\0" * bad.size)
    name = engine.name("bad")
    with pytest.raises((UnavailableError, VerificationError)):
        DockerSink(engine.client).deliver(sconified(ScratchSource(), bad), ScratchSource(), name)
    assert engine.client.api.images(name) == []


def test_a_layer_file_that_is_gone_is_named(engine, tmp_path):
    gone = layer(tmp_path, file(b"/f"))
    gone.path.unlink()
    with pytest.raises(VerificationError, match="is not the file it was"):
        DockerSink(engine.client).deliver(sconified(ScratchSource(), gone), ScratchSource(), engine.name("gone"))


def test_from_the_engine_to_a_layout_and_back(engine, native, source, tmp_path):
    image = sconified(source, layer(tmp_path, file(b"/app/run", b"up")))
    OciSink(tmp_path / "oci").deliver(image, source, "t")
    validate(tmp_path / "oci", "t")
    source.layer_files = None  # all blobs are there: no second export
    OciSink(tmp_path / "oci").deliver(image, source, "again")
    layout = OciSource(tmp_path / "oci", "t")
    name = engine.name("back")
    DockerSink(engine.client).deliver(BuiltImage(base_diff_ids=layout.diff_ids, layers=(), config=image.config), layout, name)
    assert DockerSource(lambda: engine.client, name).identity == layout.identity


def test_bare_names_are_the_engines(engine, native, tmp_path):
    source = open_source(native, docker=lambda: engine.client, default_oci_store=tmp_path)
    assert source.name == f"docker:{native}"
    sink, name = Sinks(docker=lambda: engine.client, default_oci_store=tmp_path).open("host.example:5000/a:1")
    assert isinstance(sink, DockerSink)
    assert name == "host.example:5000/a:1"
    with pytest.raises(UnavailableError, match="never-was"):
        open_source("never-was:1", docker=lambda: engine.client, default_oci_store=tmp_path)


def test_a_registry_takes_what_the_engine_has(engine, registry, source, tmp_path, need):
    image = sconified(source, layer(tmp_path, file(b"/app/run", b"up")))
    OciSink(tmp_path / "oci").deliver(image, source, "t")
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", "--dest-tls-verify=false", f"oci:{tmp_path}/oci:t", f"docker://{registry}/a/b:t"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [need("skopeo"), "copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{registry}/a/b:t", f"oci:{tmp_path}/two:t"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert OciSource(tmp_path / "two", "t").identity == OciSource(tmp_path / "oci", "t").identity
