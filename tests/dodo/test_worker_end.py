"""What a worker was given of its run is its run's to close."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os
from multiprocessing.connection import Pipe
from pathlib import Path
from sconify_dodo.work_list import WorkList
from sconify_dodo.worker import Given, live

class Parents:
    def __del__(self):
        os.write(1, b"closed")

class Store:
    def close(self):
        os.write(1, b"and its store's")

class World:
    store = Store()

    def forked(self, emit, memory):
        return [Parents()]

    def close(self):
        os.write(1, b"the world's own ")

ours, theirs = Pipe()
parent = os.getpid()
if not (pid := os.fork()):
    given = Given(
        number=0,
        world=World(),
        stale={},
        work=WorkList([], workers=1),
        state=Path("none"),
        keep_going=False,
        allowance=0,
        gather=lambda build, groups: None,
    )
    live(theirs, [ours], given, parent=parent)
ours.close()
theirs.close()
assert os.waitpid(pid, 0)[1] == 0
"""


def test_what_is_the_parents_is_not_closed_at_a_workers_end():
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "the world's own and its store's"
