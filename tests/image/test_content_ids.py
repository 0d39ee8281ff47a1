"""The content ids of a folder's files: the same on threads as without, in order, and never of a file that changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from sconify_tasks.ahead import Promise
from sconify_tasks.errors import SconifyError
from sconify_tasks.image import content_ids
from sconify_tasks.image.content_ids import ContentIds
from sconify_tasks.image.folder import Seen
from sconify_tasks.image.rootfs import RootfsSource

KEY = bytes(range(32))
SIZES = (0, 1, 65_535, 65_536, 262_144, 262_145, 3_000_000)


class Blocks:
    """Keeps the blocks of every file but those named."""

    def __init__(self, *ignored: bytes) -> None:
        self.ignored, self.seen = ignored, {}

    def watch(self, path):
        if path in self.ignored:
            return None
        blocks = self.seen[path] = []
        return lambda block: blocks.append(bytes(block))


@pytest.fixture(autouse=True, params=[0, content_ids._FEW], ids=["on threads", "alone"])
def _few(request, monkeypatch):
    monkeypatch.setattr(content_ids, "_FEW", request.param)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def folder(tmp_path):
    for size in SIZES:
        (tmp_path / f"file{size}").write_bytes(os.urandom(size))
    return tmp_path


def test_small_and_large_files_have_the_keyed_hash_of_their_content_and_a_watcher_sees_whole_blocks(folder):
    watcher = Blocks(b"/file65536")
    source = RootfsSource(folder, content_key=KEY, watcher=watcher)
    assert source.identity == RootfsSource(folder, content_key=KEY).identity
    for size in SIZES:
        path, content = f"/file{size}".encode(), (folder / f"file{size}").read_bytes()
        assert source.content_id(path) == blake3(content, key=KEY).digest()
        assert b"".join(watcher.seen.get(path, [b"not watched"])) == (b"not watched" if size == 65_536 else content)
    assert {len(block) for block in watcher.seen[b"/file3000000"][:-1]} == {262_144}


def test_a_large_file_that_changes_while_it_is_read_ends_the_identity_and_no_descriptor_stays(folder):
    class Changing:
        def watch(self, path):
            return lambda block: (folder / "file3000000").open("ab").write(b"more") if path == b"/file3000000" else None

    source = RootfsSource(folder, content_key=KEY, watcher=Changing())
    before = descriptors()
    with pytest.raises(SconifyError, match="/file3000000 changed while it was read"):
        _ = source.identity
    assert descriptors() == before


def test_small_files_need_no_thread(tmp_path):
    (tmp_path / "small").write_bytes(b"small")
    source, before = RootfsSource(tmp_path), threading.active_count()
    with source._seen(b"/small") as seen, ContentIds(bytes(32), None) as ids:
        assert ids.take(seen) == blake3(b"small", key=bytes(32)).digest()
        assert threading.active_count() == before


def test_threads_are_started_for_many_bytes_only(tmp_path, monkeypatch):
    monkeypatch.setattr(content_ids, "_FEW", 1 << 20)
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes(700_000))
    with ContentIds(KEY, None) as ids, os.scandir(tmp_path) as listing:
        names = sorted(os.fsencode(entry.name) for entry in listing)
        parent = os.open(tmp_path, os.O_RDONLY)
        found = [ids.take(Seen(b"/" + name, parent, name, os.stat(name, dir_fd=parent))) for name in names]
        assert [isinstance(each, Promise) for each in found] == [False, True, True]
    os.close(parent)
