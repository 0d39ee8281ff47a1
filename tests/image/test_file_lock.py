"""A lock file that is removed while others wait for it keeps them apart all the same."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from parts.images import built, file, layer
from parts.kernel_locks import waiting_for_locks

from sconify_tasks.file_lock import locked
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.validate import validate


def waits_for(path: Path, count: int = 1) -> None:
    """Until as many wait for the lock of the file that has this name now, as the kernel has it."""
    inode = f":{path.stat().st_ino} "
    end = time.monotonic() + 30
    while waiting_for_locks(inode) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def image(tmp_path):
    return built(layer(tmp_path / "blobs", file(b"/run", b"#!/bin/sh\n", mode=0o755)))


def test_who_waited_for_a_removed_lock_waits_for_the_one_that_took_its_name(tmp_path):
    path = tmp_path / "lock"
    said = []

    def second():
        with locked(path):
            said.append("second")

    waiting = threading.Thread(target=second)
    with locked(path):
        waiting.start()
        waits_for(path)
        path.unlink()
        new = locked(path)
        new.__enter__()
    waits_for(path)
    assert said == []
    new.__exit__(None, None, None)
    waiting.join(30)
    assert said == ["second"]


def test_a_lock_is_made_with_its_folder(tmp_path):
    with locked(tmp_path / "a" / "b" / "lock"):
        assert (tmp_path / "a" / "b" / "lock").exists()


def test_an_image_that_comes_while_the_last_one_goes_is_whole(tmp_path, image):
    """Whichever of the two that wait is first."""
    layout = tmp_path / "oci"
    for _ in range(10):
        OciSink(layout).deliver(image, ScratchSource(), "old")
        doing = [
            threading.Thread(target=OciSink(layout).remove, args=("old",)),
            threading.Thread(target=OciSink(layout).deliver, args=(image, ScratchSource(), "new")),
        ]
        with locked(layout / ".sconify.lock"):
            for thread in doing:
                thread.start()
            waits_for(layout / ".sconify.lock", 2)
        for thread in doing:
            thread.join(30)
        validate(layout, "new")
        OciSink(layout).remove("new")
        assert not layout.exists()


def test_a_lock_goes_with_the_last_image(tmp_path, image):
    layout = tmp_path / "oci"
    OciSink(layout).deliver(image, ScratchSource(), "one")
    OciSink(layout).remove("one")
    assert not layout.exists()
