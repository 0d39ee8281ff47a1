"""Layers where an engine of this machine keeps them unpacked: the same image as its archives show, and without asking it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from msgspec.structs import replace
from parts.images import built, file, folder, layer, layer_bytes, symlink
from parts.layer_memory import Memory

from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.image import listing, unpacked
from sconify_tasks.image.archived import ContainerArchives
from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.listing import inspect_image, keeps_owners
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_archive import DockerArchiveSink
from sconify_tasks.image.unpacked import LayerFolders, find_folders

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
LOW = (
    folder(b"/app", 0o2750, uid=7, gid=8),
    (replace(file(b"/app/ping", b"ping", mode=0o755)[0], xattrs=((b"security.capability", CAPABILITY),)), b"ping"),
    file(b"/app/old", b"old"),
    folder(b"/emptied"),
    file(b"/emptied/gone", b"gone"),
    symlink(b"/link", b"app"),
    file(b"/was-a-file", b"1"),
    (Entry(path=b"/fifo", kind=Kind.FIFO, mode=0o600), None),
    (Entry(path=b"/null", kind=Kind.CHAR, mode=0o666, rdev=(1, 3)), None),
    file(b"/app/latin-\xe9", b"y"),
    (Entry(path=b"/z", kind=Kind.FILE, size=3, hardlink=b"/app/old"), None),
)
HIGH = (folder(b"/app", 0o755), file(b"/app/new", b"new"), folder(b"/was-a-file"), file(b"/was-a-file/in", b"in"))


@pytest.fixture(scope="module")
def name(engine, tmp_path_factory):
    work = tmp_path_factory.mktemp("unpacked")
    (work / "low").mkdir()
    (work / "high").mkdir()
    made = built(layer(work / "low", *LOW), layer(work / "high", *HIGH))
    name = engine.name("unpacked")
    DockerArchiveSink(work / "image.tar").deliver(made, ScratchSource(), name)
    engine.load(work / "image.tar")
    return name


def not_asked():
    raise AssertionError("the SDK was asked")


def opened(engine, name, memory=None):
    return DockerSource(not_asked, name, host=engine.host, inspected=inspect_image(engine.host, name), memory=memory)


def everything(source):
    with source.walk([b"/"]) as stream:
        found = {entry.path: (entry, content.read() if content else None) for entry, content in stream}
    return {path: (replace(entry, hardlink=b""), content) for path, (entry, content) in found.items()}


def test_all_of_an_image_is_what_the_archives_show(engine, name):
    source, archives = opened(engine, name), DockerSource(lambda: engine.client, name)
    assert source.identity == archives.identity
    ours, theirs = everything(source), everything(archives)
    assert ours == theirs
    assert {b"/dev", b"/etc"} <= ours.keys(), "engines make them"
    for path in (*theirs, b"/app/old/x", b"/link/new", b"/nope", b"/nope/x", b"/app/gone", b"/etc/hosts", b"/dev/null"):
        assert source.lstat(path) == archives.lstat(path)
        assert source.listdir(path) == archives.listdir(path)
    for roots in ([b"/etc"], [b"/dev", b"/app"]):
        with source.walk(roots) as one, archives.walk(roots) as other:
            assert {entry.path for entry, _ in one} == {entry.path for entry, _ in other}
    assert ours[b"/app/ping"][0].xattrs == ((b"security.capability", CAPABILITY),)
    assert ours[b"/null"][0].rdev == (1, 3)
    assert source.read(b"/app/latin-\xe9", limit=1) == b"y"
    source.close()
    archives.close()


def test_links_of_a_walk_name_the_first(engine, name):
    source = opened(engine, name)
    with source.walk([b"/app", b"/z"]) as stream:
        links = {entry.path: entry.hardlink for entry, _ in stream}
    assert links[b"/z"] == b"/app/old"
    assert links[b"/app/old"] == b""
    with pytest.raises(UsageError, match="/nope does not exist"), source.walk([b"/nope"]) as stream:
        list(stream)
    with pytest.raises(UsageError, match="is not a file"):
        source.read(b"/app", limit=9)
    source.close()
    assert source.lstat(b"/app").kind is Kind.DIR, "it can be used again"
    source.close()


def test_what_was_learned_of_a_lower_layer_is_known_under_another_upper_one(engine, name, tmp_path):
    memory = Memory()
    source = opened(engine, name, memory)
    assert source.content_id(b"/app/ping") is None
    for path in (b"/app/ping", b"/app/new", b"/was-a-file/in"):
        source.learn(path, path.ljust(32, b"."))
    source.close()
    other = layer(tmp_path, folder(b"/app"), file(b"/app/new", b"newer"))
    low = tmp_path / "low"
    low.mkdir()
    second = engine.name("second")
    DockerArchiveSink(tmp_path / "image.tar").deliver(built(layer(low, *LOW), other), ScratchSource(), second)
    engine.load(tmp_path / "image.tar")
    source = opened(engine, second, memory)
    assert source.content_id(b"/app/ping") == b"/app/ping".ljust(32, b".")
    assert source.content_id(b"/app/new") is None
    assert source.content_id(b"/app") is None
    source.close()


@pytest.mark.parametrize("option", ["name=userns", "name=rootless,x=y"])
def test_an_engine_that_shifts_owners_is_asked(engine, name, monkeypatch, option):
    assert keeps_owners(engine.host)
    assert not keeps_owners("tcp://127.0.0.1:1"), "who gives no answer is not one"
    monkeypatch.setattr(listing, "_get", lambda host, path, peer: {"SecurityOptions": ["name=seccomp", option]})
    source = DockerSource(lambda: engine.client, name, host=engine.host)
    assert isinstance(source._opened(), ContainerArchives)
    source.close()


def test_only_who_sees_everything_reads_folders(engine, name, monkeypatch, tmp_path):
    inspected = inspect_image(engine.host, name)
    assert len(find_folders(inspected, layers=2)) == 2
    assert find_folders(inspected, layers=3) is None
    assert find_folders({**inspected, "GraphDriver": None}, layers=2) is None
    assert find_folders({**inspected, "GraphDriver": {**inspected["GraphDriver"], "Name": "overlayfs"}}, layers=2) is None
    upper = inspected["GraphDriver"]["Data"] | {"UpperDir": str(tmp_path / "not-here")}
    assert find_folders({"GraphDriver": {"Name": "overlay2", "Data": upper}}, layers=2) is None
    monkeypatch.setattr(unpacked, "_sees_everything", lambda: False)
    assert find_folders(inspected, layers=2) is None


@pytest.mark.parametrize(
    "path",
    [
        "/root",
        "/root/overlay2/diff",
        "/overlay2/../root/diff",
        "overlay2/{id}/diff",
        "/overlay2/{id}/diff/.ssh",
        "/x/{id}/diff",
    ],
)
def test_an_engine_that_lies_is_not_led_to_by_any_path(tmp_path, path):
    """It could have the files of whoever builds as root put into an image."""
    named = path.format(id="ab" * 32)
    data = {"UpperDir": named if named.startswith("/root") else f"{tmp_path}{named}"}
    Path(data["UpperDir"]).mkdir(parents=True, exist_ok=True)
    assert find_folders({"GraphDriver": {"Name": "overlay2", "Data": data}}, layers=1) is None
    good = tmp_path / "overlay2" / ("cd" * 32) / "diff"
    good.mkdir(parents=True)
    assert find_folders({"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": str(good)}}}, layers=1) == (good,)
    good.rmdir()
    good.symlink_to("/root")
    assert find_folders({"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": str(good)}}}, layers=1) is None


@pytest.fixture
def open_folder():
    """A folder that every user may use: those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="sconify-test-") as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


@pytest.mark.parametrize(
    "nonsense", [None, "x", 7, [], ["UpperDir"], {"Data": 7}, {"Name": "overlay2", "Data": {"UpperDir": ["/"]}}]
)
def test_an_engine_that_says_nonsense_is_asked_for_archives(nonsense):
    assert find_folders({"GraphDriver": nonsense}, layers=1) is None
    inspected = {"Id": "sha256:x", "Os": "linux", "Architecture": "amd64", "RootFS": nonsense, "Size": nonsense}
    source = DockerSource(not_asked, "x:1", host="unix:///nonexistent", inspected=inspected)
    assert source.diff_ids == ()
    assert isinstance(source._opened(), ContainerArchives)


def test_an_engine_of_another_user_is_asked_for_archives(open_folder, need):
    """A forwarded socket, for example: what listens there is not the engine whose folders these are."""
    socket_path = open_folder / "d.sock"
    answer = b'HTTP/1.0 200 OK\r\n\r\n{"SecurityOptions": []}'
    code = (
        "import socket,sys\ns = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready', flush=True)\n"
        "while True:\n    c, _ = s.accept(); c.recv(4096); c.sendall(bytes.fromhex(sys.argv[2])); c.close()\n"
    )
    for user, expected in ((0, True), (12345, False)):
        socket_path.unlink(missing_ok=True)
        words = [
            need("setpriv"),
            f"--reuid={user}",
            "--clear-groups",
            sys.executable,
            "-S",
            "-c",
            code,
            socket_path,
            answer.hex(),
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout.readline() == b"ready\n"
                assert keeps_owners(f"unix://{socket_path}") is expected
            finally:
                server.kill()


def test_a_process_without_the_right_to_see_marks_does_not_see_everything(need):
    python = [sys.executable, "-c", "from sconify_tasks.image.unpacked import _sees_everything; print(_sees_everything())"]
    for words, expected in (
        ([], "True"),
        ([need("setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"], "False"),
        ([need("setpriv"), "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"], "False"),
        ([need("unshare"), "--user", "--map-root-user"], "False"),
    ):
        assert subprocess.run([*words, *python], capture_output=True, text=True, check=True).stdout.strip() == expected, words


@pytest.fixture
def two(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED HERE: overlay attributes need root")
    folders = (tmp_path / "low", tmp_path / "high")
    for each in folders:
        (each / "d").mkdir(parents=True)
    (folders[0] / "d" / "f").write_bytes(b"f")
    return folders


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("d", "trusted.overlay.redirect", b"/e"),
        ("d", "trusted.overlay.opaque", b"x"),
        ("d/g", "trusted.overlay.metacopy", b""),
        ("d/g", "trusted.overlay.whiteout", b"y"),
    ],
)
def test_a_layer_that_says_the_rest_lies_elsewhere_is_refused(two, path, attribute, value):
    (two[1] / "d" / "g").write_bytes(b"")
    os.setxattr(two[1] / path, attribute, value)
    files = LayerFolders(two, name="docker:x")
    with pytest.raises(SconifyError, match="in a form that is not read here") as caught:
        everything(files)
    assert "docker-archive:" in caught.value.hint
    files.close()


def test_marks_of_overlay_file_systems_are_followed(two):
    files = LayerFolders(two, name="docker:x")
    assert files.listdir(b"/d") == [b"f"]
    files.close()
    os.setxattr(two[1] / "d", "trusted.overlay.opaque", b"y")
    files = LayerFolders(two, name="docker:x")
    assert files.listdir(b"/d") == []
    assert files.lstat(b"/d/f") is None
    files.close()
    os.removexattr(two[1] / "d", "trusted.overlay.opaque")
    os.mknod(two[1] / "d" / "f", stat.S_IFCHR, os.makedev(0, 0))
    files = LayerFolders(two, name="docker:x")
    assert files.listdir(b"/d") == []
    assert files.lstat(b"/d/f") is None
    assert files.lstat(b"/d/f/x") is None
    files.close()


def test_a_link_that_replaces_a_directory_leads_nowhere_else(two, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"s")
    (two[1] / "d").rmdir()
    (two[1] / "d").symlink_to(tmp_path / "outside")
    files = LayerFolders(two, name="docker:x")
    assert files.lstat(b"/d/secret") is None
    assert files.lstat(b"/d/f") is None
    assert files.listdir(b"/d") == []
    assert files.lstat(b"/d").target == os.fsencode(tmp_path / "outside")
    with files.walk([b"/"]) as stream:
        assert [entry.path for entry, _ in stream] == [b"/", b"/d", b"/dev", b"/etc"]
    files.close()


def test_an_image_that_is_removed_meanwhile_is_told(engine, tmp_path):
    name = engine.import_rootfs(layer_bytes(file(b"/only-%d" % os.getpid(), b"x")))
    source = opened(engine, name)
    engine.client.api.remove_image(name, force=True)
    source._client = lambda: engine.client
    with pytest.raises(SconifyError):
        source.read(b"/only-%d" % os.getpid(), limit=1)
