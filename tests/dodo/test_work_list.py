"""Workers take images off one list: each once, in order, and none after a stop."""

from __future__ import annotations

import os
from collections import Counter

from sconify_dodo.work_list import WorkList

IMAGES = [f"image-{number}" for number in range(3000)]
WORKERS = 4


def test_processes_take_each_image_once(tmp_path):
    with WorkList(IMAGES, workers=WORKERS) as work:
        pids = []
        for worker in range(WORKERS):
            pid = os.fork()
            if pid == 0:
                try:
                    taken = []
                    while (image := work.take(worker)) is not None:
                        assert work.held_by(worker) == image
                        taken.append(image)
                    (tmp_path / str(worker)).write_text("\n".join(taken))
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        assert [work.held_by(worker) for worker in range(WORKERS)] == [None] * WORKERS
    lists = [(tmp_path / str(worker)).read_text().split() for worker in range(WORKERS)]
    assert Counter(image for taken in lists for image in taken) == Counter(IMAGES)
    assert all(taken == sorted(taken, key=IMAGES.index) for taken in lists)


def test_one_that_died_still_holds_what_it_took():
    with WorkList(IMAGES, workers=2) as work:
        assert work.take(0) == "image-0"
        pid = os.fork()
        if pid == 0:
            work.take(1)
            os._exit(0)
        os.waitpid(pid, 0)
        assert [work.held_by(worker) for worker in range(2)] == ["image-0", "image-1"]


def test_after_a_stop_none_is_handed_out():
    with WorkList(IMAGES, workers=1) as work:
        assert work.take(0) == "image-0"
        work.stop()
        assert work.stopped
        assert work.take(0) is None
        assert work.held_by(0) is None
