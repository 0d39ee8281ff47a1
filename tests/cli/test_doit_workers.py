"""Many images are made in worker processes: to the same bytes, and none of the processes is ever left behind."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest
from build.small_image import Recorder, order_for, world_of, write
from cli.commands import TIMEOUT, run, start
from cli.test_interrupted import locked
from parts.kernel_locks import waiting_for_locks

from sconify_dodo.front import make_build
from sconify_dodo.work_list import WorkList
from sconify_dodo.worker import Answer
from sconify_dodo.workers import ImageFailed, WorkerFault, Workers
from sconify_tasks.errors import Interrupted
from sconify_tasks.events import Warned

IMAGES = 4
HEAD = "version: 1\nproject: many\ndefaults: {base: scratch, binary: /bin/prog, dir: [/app], from: 'dir:../native'"
HEAD += ", allow-debug-mode: true, disable-pie-check: true}\nimages:\n"


@pytest.fixture
def project(native, place):
    """More images than two jobs take as threads."""
    lines = [f"  image-{number}: {{to: 'oci:out/{number}:1', env: [N={number}]}}\n" for number in range(IMAGES)]
    (place.folder / "sconify.yaml").write_text(HEAD + "".join(lines))
    return place


@contextmanager
def waiting(project, native):
    """A run with two workers, each of which waits for a layout's lock; the block may open the locks."""
    assert run(project, ["doit", "sconify", "-n", "1"]).code == 0
    write(native / "app" / "secret", b"changed")
    with ExitStack() as locks:
        for number in range(IMAGES):
            locks.enter_context(locked(project.folder / "out" / str(number) / ".sconify.lock"))
        process = start(project, ["doit", "sconify", "-n", "2"])
        end = time.monotonic() + TIMEOUT
        while len(workers := children(process.pid)) < 2 or not all(waiting_for_locks(f" {pid} ") for pid in workers):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield process, workers, locks


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + TIMEOUT
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(process) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    return process.returncode, stdout, stderr


def digests(project) -> list[bytes]:
    return [(project.folder / "out" / str(number) / "index.json").read_bytes() for number in range(IMAGES)]


def test_workers_make_the_bytes_and_lines_that_one_process_makes(project, place, tmp_path):
    alone = run(project, ["doit", "sconify", "-n", "1"])
    assert alone.code == 0, alone.stderr
    wanted = digests(project)
    other = place.beside(tmp_path / "other")
    (other.folder / "sconify.yaml").write_text((project.folder / "sconify.yaml").read_text())
    words = ["doit", "sconify", "-n", "2", "--events", "events.jsonl", "--trace", "trace.json"]
    many = run(other, words, env={"SCONIFY_MEMORY": "1"})  # heavy steps take turns
    assert many.code == 0, many.stderr
    assert (many.stdout, digests(other)) == (alone.stdout, wanted)
    assert [*(other.cache / "store" / "tmp").iterdir()] == []
    said = [json.loads(line) for line in (other.folder / "events.jsonl").read_text().splitlines()]
    done = [(event["image"], event["step"]) for event in said if event["kind"] == "step-finished"]
    planned = [(event["image"], step) for event in said if event["kind"] == "plan" for step in event["stale"]]
    assert sorted(done) == sorted(planned) != []
    lanes = steps_by_lane(other.folder / "trace.json")
    assert set(lanes) == {1, 2}
    for steps in lanes.values():
        assert all(one["ts"] + one["dur"] <= next_["ts"] for one, next_ in pairwise(steps))
    assert run(other, ["doit", "sconify", "-n", "2"]).stderr == ""


def steps_by_lane(trace: Path) -> dict[int, list[dict]]:
    lanes: dict[int, list[dict]] = {}
    for event in sorted(json.loads(trace.read_text()), key=lambda event: event.get("ts", 0)):
        if event["ph"] == "X":
            lanes.setdefault(event["tid"], []).append(event)
    return lanes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_workers_die_with_their_run(project, native, number):
    with waiting(project, native) as (process, workers, _):
        os.kill(process.pid, number)
        assert gone(workers)
        code, stdout, stderr = ended(process)
        assert (code, stdout) == (-number, "")
        assert "Error" not in stderr
    assert run(project, ["doit", "sconify", "-n", "2"]).code == 0


def test_an_interrupt_ends_the_workers_too(project, native):
    with waiting(project, native) as (process, workers, _):
        process.send_signal(signal.SIGINT)
        code, stdout, stderr = ended(process)
        assert (code, stdout) == (130, "")
        assert "Traceback" not in stderr
        assert gone(workers)
    assert run(project, ["doit", "sconify", "-n", "2"]).code == 0


def test_a_worker_that_is_killed_fails_its_image_in_one_line(project, native):
    with waiting(project, native) as (process, workers, locks):
        os.kill(workers[0], signal.SIGKILL)
        locks.close()
        code, stdout, stderr = ended(process)
    assert (code, stdout) == (1, "")
    assert stderr.count("the worker process that made it is gone") == 1
    assert "Traceback" not in stderr
    assert gone(workers)
    assert run(project, ["doit", "sconify", "-n", "2"]).code == 0


def test_a_failure_in_a_worker_has_its_exit_code_and_hint(project):
    text = (project.folder / "sconify.yaml").read_text()
    (project.folder / "sconify.yaml").write_text(text.replace("image-2: {", "image-2: {binary: /bin/none, "))
    found = run(project, ["doit", "sconify", "-n", "2", "--continue"])
    one = run(
        project.beside(project.folder.parent / "one"),
        ["doit", "sconify", "-n", "1", "-f", str(project.folder / "sconify.yaml"), "--continue"],
    )
    assert found.code == one.code != 0
    assert found.errors == one.errors
    assert len(found.stdout.splitlines()) == IMAGES - 1


def test_the_first_failure_keeps_other_images_from_being_begun(project):
    text = (project.folder / "sconify.yaml").read_text()
    (project.folder / "sconify.yaml").write_text(text.replace("{to:", "{binary: /bin/none, to:"))
    found = run(project, ["doit", "sconify", "-n", "2"])
    assert (found.code, found.stdout) == (2, "")
    assert 1 <= len(found.errors) <= 2
    assert all("/bin/none" in line for line in found.errors), found.stderr
    assert not (project.folder / "out").exists()


@pytest.mark.parametrize("order", [("stops", "fails"), ("fails", "stops")], ids=" first, then ".join)
def test_what_stops_because_another_image_failed_does_not_count_as_interrupted(native, place, order):
    """Whichever of the two the run hears of first, and whichever it waits for first."""
    codes = {"fails": 1, "stops": Interrupted.exit_code}
    ours, theirs = Pipe()
    with world_of(place, Recorder()) as world, ours, theirs, WorkList(codes, workers=1) as work:
        stale = {name: (make_build(world, order_for(native, place)), ()) for name in codes}
        workers = Workers(world=world, stale=stale, work=work, keep_going=False)
        workers.listen(0, ours)
        for name in order:
            threading.Timer(0.1 * order.index(name), theirs.send, [((), Answer(image=name, code=codes[name]))]).start()
        for name in ("stops", "fails"):
            with pytest.raises(ImageFailed) as caught:
                workers.make(name)
            assert caught.value.exit_code == 1
        assert work.stopped
        theirs.close()
        workers.wait()


@pytest.mark.parametrize("keep_going", [False, True])
def test_what_goes_wrong_while_a_worker_is_heard_is_an_error_and_nobody_waits_for_ever(native, place, keep_going):
    def fails(_event) -> None:
        raise ValueError("no")

    ours, theirs = Pipe()
    names = ("heard", "never begun")
    with world_of(place, Recorder()) as world, ours, theirs, WorkList(names, workers=1) as work:
        world.events.subscribers[:] = [fails]
        stale = {name: (make_build(world, order_for(native, place)), ()) for name in names}
        workers = Workers(world=world, stale=stale, work=work, keep_going=keep_going)
        theirs.send((((0.0, Warned(message="hear")),), Answer(image="heard", code=0)))
        workers.listen(0, ours)
        for name in names:
            with pytest.raises(WorkerFault, match="ValueError: no"):
                workers.make(name)
        assert work.take(0) is None


GATHERS_NOTHING = """
import os, sys
from sconify_tasks.errors import StoreError
from sconify_tasks.settled.recollection import Recollection

run, gather = os.getpid(), Recollection.gather

def fails_in_workers(self, build, note, **more):
    if os.getpid() != run:
        raise StoreError("no")
    return gather(self, build, note, **more)

Recollection.gather = fails_in_workers
sys.argv = ["doit", "sconify", "-n", "2"]
from doit.__main__ import main
main()
"""


def test_what_a_worker_can_not_gather_the_run_gathers(project):
    ended = run(project, ["python", "-c", GATHERS_NOTHING])
    assert (ended.code, ended.errors, len(ended.stdout.splitlines())) == (0, [], IMAGES)
    again = run(project, ["doit", "sconify", "-n", "2"])
    assert (again.code, again.stderr) == (0, "")


def test_workers_gather_of_a_folder(project):
    """Else the run would do it at its end, one by one."""
    program = GATHERS_NOTHING.replace("!= run", "== run")
    ended = run(project, ["python", "-c", program])
    assert (ended.code, ended.errors) == (0, [])
    assert run(project, ["doit", "sconify", "-n", "2"]).stderr == ""
