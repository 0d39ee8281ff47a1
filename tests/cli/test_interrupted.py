"""Ctrl-C, kill -9 and a full disk, at every step: one line, the right code, nothing half-written, and the next run is right."""

from __future__ import annotations

import fcntl
import shutil
import signal
import sqlite3
import subprocess
from contextlib import contextmanager

import pytest
from build.small_image import SECRET, Place, write
from cli.commands import arguments, run, start, stop_at, temporary
from parts.need import missing

from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.image.validate import validate


@contextmanager
def locked(path):
    """Hold a file's or folder's lock, so that whoever wants it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.suffix:
        path.mkdir(exist_ok=True)
    with path.open("a") if path.suffix else opened_folder(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def opened_folder(path):
    import os

    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def busy_sessions(place: Place):
    database = sqlite3.connect(place.state / "cas" / "sessions.sqlite", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.close()


# Places where a step waits for somebody else, for as long as the test wants.
WAITS = {
    "deliver": lambda place: locked(place.layout / ".sconify.lock"),
    "resources": lambda place: locked(place.resources),
    "upload": busy_sessions,
}


def big(native):
    """Something to do in every step."""
    write(native / "app" / "big", b"protected " * 2_000_000)


def no_plaintext(place: Place) -> bool:
    return not any(SECRET[:30] in path.read_bytes() for path in place.folder.rglob("*") if path.is_file())


def is_right(native, place: Place, tmp_path) -> None:
    """The next run ends well, with what a clean build gives, and leaves no scraps."""
    ended = run(place, arguments(native, place))
    assert ended.code == 0, ended.stderr
    validate(place.layout, "small")
    clean = place.beside(tmp_path / "clean")
    assert run(clean, arguments(native, clean)).code == 0
    assert clean.image_digest() == place.image_digest()
    assert list((place.cache / "store" / "tmp").iterdir()) == []
    assert [path.name for path in place.resources.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in place.layout.rglob(".sconify-*")] == []
    assert no_plaintext(place)


@pytest.mark.parametrize("step", sorted(WAITS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_a_step_waits(native, place, tmp_path, step, number):
    if step == "upload":
        assert run(place, arguments(native, place)).code == 0
        write(native / "app" / "secret", SECRET + b"changed")
    with WAITS[step](place):
        process = start(place, arguments(native, place))
        ended = stop_at(process, step, number)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    if number == signal.SIGINT:
        assert ended.code == 130, ended.stderr
        assert [line for line in ended.errors if "interrupted" in line] == ended.errors
        assert len(ended.errors) == 1
    else:
        assert ended.code == -number
    if step == "deliver":
        assert not (place.layout / "index.json").exists()
        assert not place.session.exists()
    is_right(native, place, tmp_path)


def test_kill_9_at_the_beginning_of_every_step(native, place, tmp_path):
    big(native)
    killed = 0
    for step in ALL:
        # Everything is to be done again, so that every step is met at its beginning.
        shutil.rmtree(place.cache, ignore_errors=True)
        killed += stop_at(start(place, arguments(native, place)), step.name, signal.SIGKILL).code == -signal.SIGKILL
        assert no_plaintext(place)
    assert killed > len(ALL) // 2
    is_right(native, place, tmp_path)


def test_ctrl_c_at_the_beginning_of_every_step(native, place, tmp_path):
    big(native)
    codes = set()
    for step in ALL:
        ended = stop_at(start(place, arguments(native, place)), step.name, signal.SIGINT)
        codes.add(ended.code)
        assert "Traceback" not in ended.stderr
        # It may have come when everything was done.
        assert ended.code in (0, 130), ended.stderr
        assert list(temporary(place).iterdir()) == []
    assert 130 in codes
    is_right(native, place, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a given size, that can grow."""
    mounted = []

    def mount(folder, size: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        option = f"size={size},mode=700" + (",remount" if folder in mounted else "")
        found = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], capture_output=True, check=False)
        if found.returncode:
            missing("the right to mount a tmpfs")
        if folder not in mounted:
            mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("which", "size"),
    [
        *(("cache", "16k"), ("cache", "64k"), ("cache", "1m"), ("cache", "3m"), ("cache", "8m")),
        *(("layout", "16k"), ("layout", "2m"), ("resources", "16k"), ("resources", "2m"), ("state", "16k"), ("state", "64k")),
    ],
)
def test_a_full_disk(native, place, tmp_path, small_disk, which, size):  # noqa: PLR0917
    write(native / "app" / "big", b"protected " * 400_000)
    folder = getattr(place, which)
    small_disk(folder, size)
    ended = run(place, arguments(native, place))
    assert "Traceback" not in ended.stderr
    if ended.code:
        assert ended.code == 1, ended.stderr
        assert ended.errors
        # Steps that run at once may all fail; each says why.
        for line in ended.errors:
            assert "No space left" in line or "full" in line, ended.stderr
        assert ended.stdout == ""
        if which in ("cache", "layout"):
            assert not (place.layout / "index.json").exists()
            assert not place.session.exists()
    else:
        assert size in ("8m", "64k")
    small_disk(folder, "256m")
    is_right(native, place, tmp_path)


@pytest.fixture
def somebody(tmp_path_factory, need):
    """A folder of a user without privileges, and the words that make a command run as that user."""
    import os
    import tempfile
    from pathlib import Path

    if os.geteuid():
        missing("root, to become somebody else")
    words = [need("setpriv"), "--reuid=12345", "--regid=12345", "--clear-groups", "--no-new-privs"]
    folder = Path(tempfile.mkdtemp(prefix="sconify-somebody-"))
    os.chown(folder, 12345, 12345)
    yield folder, words
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("unreadable", "mode"),
    [("app/secret", 0o000), ("app/sub", 0o000), ("plain", 0o311), ("bin/prog", 0o111), ("unselected/folder", 0)],
)
def test_what_the_user_may_not_read_is_named(native, somebody, unreadable, mode):
    import os

    from cli.commands import BIN, variables

    folder, become = somebody
    write(native / "unselected" / "folder" / "file", b"x")
    shutil.copytree(native, folder / "native")
    shutil.copy(native.with_name("native.json"), folder / "native.json")
    place = Place(folder=folder)
    words = arguments(folder / "native", place)
    env = variables(place)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345)
    (folder / "native" / unreadable).chmod(mode)
    found = subprocess.run(
        [*become, BIN / words[0], *words[1:]], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if "Permission denied" in found.stderr and "/native" not in found.stderr and "/" + unreadable not in found.stderr:
        missing("an interpreter that another user may run")
    errors = [line for line in found.stderr.splitlines() if line.startswith("Error:")]
    assert found.returncode == 1, found.stderr
    assert len(errors) == 1
    assert f"/{unreadable}: Permission denied" in errors[0]
    assert not (place.layout / "index.json").exists()
    (folder / "native" / unreadable).chmod(0o755)
    found = subprocess.run(
        [*become, BIN / words[0], *words[1:]], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
