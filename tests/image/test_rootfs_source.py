# ruff: noqa: PTH104, PTH108, PTH211
# Paths are bytes here, which pathlib has not.
"""A folder as an image."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.rootfs import RootfsSource


class Memory:
    def __init__(self):
        self.known, self.asked, self.hashed = {}, 0, []

    def lookup(self, path, found):
        self.asked += 1
        return self.known.get((path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))

    def remember(self, path, found, content):
        self.hashed.append(path)
        self.known[(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)] = content


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "rootfs"
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "usr" / "lib" / "x").write_bytes(b"library")
    (root / "lib").symlink_to("usr/lib")
    (root / "out").symlink_to("/etc")
    (root / "up").symlink_to("../../..")
    (root / "app").mkdir(mode=0o750)
    (root / "app" / "a").write_bytes(b"content")
    os.link(root / "app" / "a", root / "app" / "b")
    (tmp_path / "secret").write_bytes(b"host")
    (root / "app" / "leak").symlink_to("../../secret")
    return root


def walked(source, *roots):
    with source.walk(roots) as stream:
        return [(entry, content.read() if content else None) for entry, content in stream]


def test_a_walk_gives_every_path_once_with_content(root):
    found = walked(RootfsSource(root), b"/")
    assert [entry.path for entry, _ in found] == [
        b"/", b"/app", b"/app/a", b"/app/b", b"/app/leak", b"/lib", b"/out", b"/up", b"/usr", b"/usr/lib", b"/usr/lib/x",
    ]  # fmt: skip
    by_path = {entry.path: (entry, content) for entry, content in found}
    assert by_path[b"/app/b"][0].hardlink == b"/app/a"
    assert by_path[b"/app/b"][1] == b"content"
    assert by_path[b"/app/leak"] == (by_path[b"/app/leak"][0], None)
    assert by_path[b"/app/leak"][0].target == b"../../secret"
    assert by_path[b"/app"][0].mode == 0o750


def test_symlinks_are_never_followed(root):
    source = RootfsSource(root)
    assert source.lstat(b"/lib").kind is Kind.SYMLINK
    for path in (b"/lib/x", b"/out/passwd", b"/up/etc", b"/app/a/x", b"/nope", b"/nope/x"):
        assert source.lstat(path) is None
    for path in (b"/app/leak", b"/out/passwd", b"/app"):
        with pytest.raises(UsageError, match="not a file"):
            source.read(path, limit=100)
    with pytest.raises(UsageError, match="does not exist"):
        walked(source, b"/out/passwd")
    with pytest.raises(UsageError):
        source.lstat(b"/../secret")


def test_reading_is_bounded(root):
    source = RootfsSource(root)
    assert source.read(b"/app/a", limit=7) == b"content"
    with pytest.raises(UsageError, match="7 bytes"):
        source.read(b"/app/a", limit=6)


def test_an_unchanged_tree_is_not_hashed_again_and_a_changed_one_differs(root):
    memory = Memory()
    first = RootfsSource(root, stat_cache=memory).identity
    assert len(memory.hashed) == 3
    assert RootfsSource(root, stat_cache=memory).identity == first
    assert len(memory.hashed) == 3
    (root / "app" / "a").write_bytes(b"CONTENT")
    second = RootfsSource(root, stat_cache=memory).identity
    assert second != first
    assert len(memory.hashed) == 5
    (root / "app").chmod(0o700)
    assert RootfsSource(root, stat_cache=memory).identity not in (first, second)


def test_the_config_lies_beside_the_folder(root):
    assert RootfsSource(root).config.entrypoint == ()
    before = RootfsSource(root).identity
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/app/a"], "Env": ["A=1"], "WorkingDir": "/app"},
    }
    root.with_name("rootfs.json").write_text(json.dumps(config))
    source = RootfsSource(root)
    assert (source.config.entrypoint, source.config.env, source.config.workdir) == (("/app/a",), ("A=1",), "/app")
    assert source.identity != before
    root.with_name("rootfs.json").write_text(json.dumps(dict(config, architecture="arm64")))
    with pytest.raises(UsageError, match="arm64"):
        RootfsSource(root)
    root.with_name("rootfs.json").write_text('{"config": {"Env": "A=1"}}')
    with pytest.raises(UsageError, match="Env of the image config"):
        RootfsSource(root)


def test_names_that_are_not_text_are_fine(root):
    (root / "app" / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    assert b"/app/\xff\xfe" in [entry.path for entry, _ in walked(RootfsSource(root), b"/app")]


def test_sockets_are_left_out_and_fifos_do_not_block(root):
    os.mkfifo(root / "app" / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "app" / "socket"))
        entries = {entry.path: entry.kind for entry, _ in walked(RootfsSource(root), b"/app")}
    assert entries[b"/app/fifo"] is Kind.FIFO
    assert b"/app/socket" not in entries
    assert RootfsSource(root).lstat(b"/app/socket") is None


def test_a_missing_folder_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match="No such file"):
        RootfsSource(tmp_path / "nope")


def test_a_directory_that_turns_into_a_symlink_while_walking_leads_nowhere(root, tmp_path):
    """The race that directory descriptors are for: swap a directory for a link to the host and back, again and again."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "stolen").write_bytes(b"host content")
    (root / "race").mkdir()
    (root / "race" / "mine").write_bytes(b"x")
    done = threading.Event()

    def swap():
        while not done.is_set():
            os.rename(root / "race", root / "aside")
            os.symlink(tmp_path / "host", root / "race")
            os.unlink(root / "race")
            os.rename(root / "aside", root / "race")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        source = RootfsSource(root)
        for _ in range(300):
            try:
                assert source.lstat(b"/race/stolen") is None
                names = [entry.path for entry, _ in walked(source, b"/race")]
            except SconifyError:
                continue
            assert b"/race/stolen" not in names
    finally:
        done.set()
        swapper.join()


def test_the_layer_of_a_folder_holds_the_whole_folder(root):
    from sconify_tasks.image.search import search_base

    source = RootfsSource(root)
    found = {item.entry.path: item.content.read() if item.content else None for item in search_base(source)}
    assert found[b"/app/a"] == b"content"
    assert found.keys() == {entry.path for entry, _ in walked(source, b"/")}


def test_the_holes_of_a_sparse_file_are_zeros_and_cost_no_memory(root):
    with (root / "app" / "sparse").open("wb") as out:
        out.seek(300 << 20)
        out.write(b"end")
    source = RootfsSource(root)
    with source.walk([b"/app/sparse"]) as stream:
        ((entry, content),) = ((entry, content) for entry, content in stream)
        assert entry.size == (300 << 20) + 3
    with source.walk([b"/app/sparse"]) as stream:
        _, content = next(stream)
        assert content.read(1 << 20) == bytes(1 << 20)
        content.seek(300 << 20)
        assert content.read() == b"end"


def test_links_whose_first_name_lies_outside_the_roots_are_files_of_their_own(root):
    (root / "other").mkdir()
    os.link(root / "app" / "a", root / "other" / "z")
    ((_, none), (entry, content)) = walked(RootfsSource(root), b"/other")
    assert (entry.path, entry.hardlink, none, content) == (b"/other/z", b"", None, b"content")
    links = {entry.path: entry.hardlink for entry, _ in walked(RootfsSource(root), b"/app", b"/other")}
    assert links[b"/app/b"] == links[b"/other/z"] == b"/app/a"


@pytest.mark.parametrize("name", ["app/a", "usr"])
def test_what_may_not_be_read_is_named_and_nothing_is_left_out(root, name):
    (root / name).chmod(0)
    code = (
        "import os, sys\n"
        "from sconify_tasks.errors import SconifyError\n"
        "from sconify_tasks.image.rootfs import RootfsSource\n"
        "from pathlib import Path\n"
        "source = RootfsSource(Path('.'))\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    with source.walk([b'/']) as stream:\n"
        "        for _, content in stream: content and content.read()\n"
        "except SconifyError as error: print(error.message, '-', error.hint)\n"
        "else: sys.exit('it was read')\n"
    )
    (root / "app").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == f"/{name}: Permission denied - make the folder readable, or build as its owner\n"


CHANGES = {
    "grown": lambda path: path.write_bytes(b"longer content"),
    "shrunk": lambda path: path.write_bytes(b""),
    "written over": lambda path: path.write_bytes(b"CONTENT"),
    "replaced": lambda path: (path.with_name("new").write_bytes(b"CONTENT"), path.with_name("new").rename(path)),
    "made unreadable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_file_that_changes_while_it_is_read_ends_the_walk(root, change):
    def read_on():
        with RootfsSource(root).walk([b"/usr/lib/x"]) as stream:
            for _, content in stream:
                content.read(3)
                CHANGES[change](root / "usr" / "lib" / "x")
                content.read()

    with pytest.raises(SconifyError, match="/usr/lib/x changed while it was read"):
        read_on()


def test_a_file_that_vanishes_before_it_is_read_ends_the_walk(root):
    def read_on():
        with RootfsSource(root).walk([b"/app", b"/usr/lib/x"]) as stream:
            for entry, _ in stream:
                if entry.path == b"/app":
                    (root / "usr" / "lib" / "x").unlink()

    with pytest.raises(SconifyError, match="/usr/lib"):
        read_on()
