"""A group is looked at in two halves, the later one in a fork where there are many: every change is found in either."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sconify_tasks.settled import watch
from sconify_tasks.settled.beside import beside
from sconify_tasks.settled.watch import Watching

COUNT = 9
LATER = 10**12 * 10**9


def group(tmp_path):
    watching = Watching()
    for number in range(COUNT):
        path = tmp_path / f"file{number}"
        path.write_text(f"{number}")
        watching.link(str(path), before=LATER)
    (tmp_path / "own").write_text("own")
    (tmp_path / "length").write_text("length")
    watching.file(tmp_path / "own", before=LATER)
    watching.length(tmp_path / "length")
    return watching.done()


@pytest.mark.parametrize("many", [0, 1 << 20], ids=["in two processes", "in one"])
@pytest.mark.parametrize("name", [*(f"file{number}" for number in range(COUNT)), "own", "length"])
def test_a_change_and_an_absence_are_found_wherever_they_are(tmp_path, monkeypatch, many, name):
    monkeypatch.setattr(watch, "_MANY", many)
    found = group(tmp_path)
    assert found.holds()
    (tmp_path / name).write_text("another content")
    assert not found.holds()
    assert found.now() is not None
    (tmp_path / name).unlink()
    assert found.now() is None


_PROGRAM = """
import os, signal, sys
from sconify_tasks.settled.beside import beside

def work():
    if os.getpid() != parent and sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
    return None if sys.argv[1] == "nothing" else b"%d" % os.getpid()

if sys.argv[1] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
parent = os.getpid()
os.sched_getaffinity = lambda _: range(2)
before = len(os.listdir("/proc/self/fd"))
found = beside(work)()
assert len(os.listdir("/proc/self/fd")) == before
try:
    os.waitpid(-1, os.WNOHANG)
    left = True
except ChildProcessError:
    left = False
print(found is None, found == b"%d" % parent, left)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("well", "False False False"),
        ("nothing", "True False False"),
        ("killed", "False True False"),
        ("ignored", "False False False"),
    ],
)
def test_what_is_computed_beside_comes_from_another_process_which_does_not_stay(how, said):
    ended = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    assert (ended.stdout.strip(), ended.stderr) == (said, "")


def test_with_one_processor_nothing_is_forked(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    assert beside(lambda: b"here")() == b"here"
