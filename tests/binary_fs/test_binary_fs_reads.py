"""How often a file is read for an embedded file system: once for all of its digests, and not again until it changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from contextlib import contextmanager

import pytest
from build.small_image import convert, write

from sconify_tasks.binary_fs import digests
from sconify_tasks.binary_fs.digests import ChunkDigests
from sconify_tasks.binary_fs.watching import Watched
from sconify_tasks.events import StepFinished
from sconify_tasks.image import unpacked
from sconify_tasks.image.folder import SeenFile

EMBED = {"binary-fs": True, "dir": (), "plain": (), "fs-dir": ("/app",)}
ENCRYPT = {"dir": ("/app",), "plain": ()}


def read_by(outcome, step):
    (event,) = (event for event in outcome.events if isinstance(event, StepFinished) and event.step == step)
    return event.counts.get("files read")


@pytest.fixture
def hashed(monkeypatch):
    """The paths of files whose chunks were hashed, as often as they were."""
    paths = []
    begin, watch = ChunkDigests.begin, Watched.watch
    monkeypatch.setattr(ChunkDigests, "begin", lambda self, path: paths.append(path) or begin(self, path))

    def counted(self, path):
        take = watch(self, path)
        paths.extend([path] * (take is not None))
        return take

    monkeypatch.setattr(Watched, "watch", counted)
    return paths


def test_of_a_folder_each_file_is_hashed_once_with_its_identity_and_only_a_changed_one_again(
    native, place, hashed, monkeypatch
):
    looked = []
    read = SeenFile.read

    def counted(self, size=-1, /):
        data = read(self, size)
        looked.append((self._seen.path, len(data)))
        return data

    monkeypatch.setattr(SeenFile, "read", counted)
    for number in range(20):
        write(native / "app" / f"file{number}", bytes([number]) * (number * 20_000 + 1))
    assert convert(native, place, **EMBED).code == 0
    everything = sorted(str(path.relative_to(native)) for path in (native / "app").rglob("*") if path.is_file())
    assert sorted(hashed) == [f"/{path}".encode() for path in everything]
    assert not [path for path, length in looked if path.startswith(b"/app/file")]
    hashed.clear()
    write(native / "app" / "file7", b"changed" * 30_000)
    assert convert(native, place, **EMBED).code == 0
    assert hashed == [b"/app/file7"]


def test_what_waits_for_a_thread_is_bounded_however_large_a_file_is(monkeypatch):
    waiting, most = [], []
    whole = digests._hash

    def slow(block):
        time.sleep(0.001)
        found = whole(block)
        waiting.pop()
        return found

    monkeypatch.setattr(digests, "_hash", slow)
    block = bytes(1 << 20)
    with ChunkDigests({}, lambda _: True) as reader:
        reader.begin(b"/large")
        for _ in range(100):
            waiting.append(1)
            most.append(len(waiting))
            reader.add(b"/large", block)
        reader.end(b"/large")
        assert reader.of(b"/large", b"") == hashlib.sha256(bytes(digests.CHUNK)).digest() * 1600
    assert 1 < max(most) <= 9


def add_layer(umoci, layout, folder):
    tar = folder.with_suffix(".tar")
    subprocess.run(["tar", "-C", folder, "-cf", tar, "."], check=True)
    subprocess.run([umoci, "raw", "add-layer", "--image", f"{layout}:1", tar], check=True, capture_output=True)


@pytest.mark.parametrize("mode", [(EMBED, "embedded"), (ENCRYPT, "files")], ids=["embedded", "encrypted"])
def test_of_an_image_in_layers_only_what_a_new_layer_brings_is_read_again(native, place, tmp_path, need, mode):
    (given, step), umoci, layout = mode, need("umoci"), tmp_path / "native-layout"
    for number in range(20):
        write(native / "app" / f"file{number}", bytes([number]) * 20_000)
    subprocess.run([umoci, "init", "--layout", layout], check=True, capture_output=True)
    subprocess.run([umoci, "new", "--image", f"{layout}:1"], check=True, capture_output=True)
    add_layer(umoci, layout, native)
    command = [umoci, "config", "--image", f"{layout}:1", "--config.cmd", "/bin/prog"]
    subprocess.run(command, check=True, capture_output=True)
    given = {**given, "from": f"oci:{layout}:1"}
    assert read_by(convert(native, place, **given), step) == 23
    (tmp_path / "more" / "app").mkdir(parents=True)
    write(tmp_path / "more" / "app" / "file7", b"changed" * 30_000)
    add_layer(umoci, layout, tmp_path / "more")
    outcome = convert(native, place, **given)
    assert (outcome.code, read_by(outcome, step)) == (0, 1)
    clean = place.beside(tmp_path / "clean")
    assert convert(native, clean, **given).code == 0
    assert clean.image_digest() == place.image_digest()


@pytest.mark.parametrize("mode", [(EMBED, "embedded"), (ENCRYPT, "files")], ids=["embedded", "encrypted"])
def test_so_it_is_of_an_image_of_an_engine_whose_layers_can_be_read(native, place, tmp_path, engine, mode):
    given, step = mode
    for number in range(20):
        write(native / "app" / f"file{number}", bytes([number]) * 20_000)
    lower, upper = engine.name("lower"), engine.name("upper")
    build(engine, lower, native, 'FROM scratch\nCOPY . /\nCMD ["/bin/prog"]\n')
    host = {"DOCKER_HOST": engine.host}
    assert read_by(convert(native, place, variables=host, **given | {"from": f"docker:{lower}"}), step) == 23
    write(tmp_path / "more" / "app" / "file7", b"changed" * 30_000)
    build(engine, upper, tmp_path / "more", f"FROM {lower}\nCOPY . /\n")
    given |= {"from": f"docker:{upper}"}
    outcome = convert(native, place, variables=host, **given)
    assert (outcome.code, read_by(outcome, step)) == (0, 1)
    clean = place.beside(tmp_path / "clean")
    with folders_unreadable():
        assert read_by(convert(native, clean, variables=host, **given), step) == 23
    assert clean.image_digest() == place.image_digest(), "as from the engine's archives"


def build(engine, name, folder, dockerfile):
    command = ["docker", "-H", engine.host, "build", "--quiet", "--tag", name, "--file", "-", folder]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    subprocess.run(command, input=dockerfile.encode(), env=environment, check=True, capture_output=True)


@contextmanager
def folders_unreadable():
    """As for a user who can't read the engine's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacked, "_sees_everything", lambda: False)
        yield
