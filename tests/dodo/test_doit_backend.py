"""doit's state survives a kill, threads and processes, and is never reset in silence."""

import sqlite3
import threading

import pytest
from doit.dependency import Dependency, JSONCodec, MD5Checker, SqliteDB
from doit.task import Task

from sconify_dodo.backend import SconifyBackend, StateError

DODO = """
import os
import signal

DOIT_CONFIG = {"backend": "sconify", "dep_file": "state.db", "verbosity": 2}


def work(number):
    if number == int(os.environ.get("DIE_AT", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == int(os.environ.get("FAIL_AT", -1)):
        return False
    with open("log", "a") as log:
        log.write(f"{number}\\n")
    return {"number": number}


def task_work():
    for number in range(20):
        yield {
            "name": str(number),
            "actions": [(work, [number])],
            "file_dep": ["source"],
            "task_dep": [f"work:{number - 1}"] if number else [],
            "io": {"capture": False},
        }


def task_wide():
    for number in range(100, 160):
        yield {"name": str(number), "actions": [(work, [number])], "file_dep": ["source"], "io": {"capture": False}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dodo.py").write_text(DODO)
    (tmp_path / "source").write_text("1")
    return tmp_path


def log(folder):
    lines = (folder / "log").read_text().split() if (folder / "log").exists() else []
    (folder / "log").unlink(missing_ok=True)
    return [int(line) for line in lines]


@pytest.fixture
def backend(tmp_path):
    return SconifyBackend(str(tmp_path / "state.db"), JSONCodec())


def reopened(backend):
    return SconifyBackend(backend.name, JSONCodec())


@pytest.mark.parametrize("runner", [[], ["-n", "4", "-P", "thread"]], ids=["serial", "threads"])
def test_tasks_that_finished_before_a_kill_stay_finished(doit, folder, runner):
    killed = doit("run", *runner, "work", DIE_AT="13")
    assert killed.returncode == -9
    assert log(folder) == list(range(13))
    again = doit("run", *runner, "work")
    assert again.returncode == 0, again.stderr
    assert log(folder) == list(range(13, 20))
    assert doit("run", *runner, "work").returncode == 0
    assert log(folder) == []


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_parallel_runs_record_every_task(doit, folder, kind):
    first = doit("run", "-n", "4", "-P", kind, "wide")
    assert first.returncode == 0, first.stderr
    assert sorted(log(folder)) == list(range(100, 160))
    assert doit("run", "-n", "4", "-P", kind, "wide").returncode == 0
    assert log(folder) == []


def test_a_failed_task_runs_again_and_a_changed_source_runs_all(doit, folder):
    assert doit("run", "work").returncode == 0
    log(folder)
    (folder / "source").write_text("22")
    assert doit("run", "work", FAIL_AT="3").returncode == 1
    assert log(folder) == [0, 1, 2]
    assert doit("run", "work").returncode == 0
    assert log(folder) == list(range(3, 20))


def test_forget_and_ignore_work(doit, folder):
    assert doit("run", "work").returncode == 0
    log(folder)
    assert doit("forget", "work:5").returncode == 0
    assert doit("ignore", "work:7").returncode == 0
    assert doit("run", "work").returncode == 0
    assert log(folder) == [5]


def stock_sqlite(path):
    database = SqliteDB(str(path), JSONCodec())
    database.set("task", "deps:", [])
    database.dump()


def other_version(path):
    SconifyBackend(str(path), JSONCodec()).dump()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()


def unreadable_row(path):
    SconifyBackend(str(path), JSONCodec()).dump()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO tasks VALUES ('work:0', '[not json')")
    database.close()


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(b"rubbish" * 999), stock_sqlite, other_version, unreadable_row],
    ids=["rubbish", "stock", "version", "row"],
)
def test_a_file_that_is_not_ours_or_damaged_is_a_clear_error_and_stays_as_it_is(doit, folder, spoil):
    spoil(folder / "state.db")
    before = (folder / "state.db").read_bytes()
    found = doit("run", "work:0")
    assert found.returncode == 3
    assert found.stderr.startswith(f"ERROR: doit's state in {folder / 'state.db'}: ")
    assert "delete it" in found.stderr
    assert "Traceback" not in found.stderr
    assert (folder / "state.db").read_bytes() == before
    assert log(folder) == []


def test_a_folder_that_does_not_exist_is_named(doit, folder):
    found = doit("run", "--db-file", "none/state.db", "work:0")
    assert (found.returncode, found.stderr.count("\n")) == (3, 1)
    assert "check that its folder exists" in found.stderr


def test_what_is_set_is_read_again_after_reopening(backend):
    backend.set("a", "_values_:", {"x": [1, None, "é"]})
    assert reopened(backend).get("a", "_values_:") is None  # a task half saved is not saved
    backend.set("a", "deps:", ("f",))
    backend.set("b", "ignore:", "1")
    assert reopened(backend).get("a", "_values_:") == {"x": [1, None, "é"]}
    assert not reopened(backend).in_("b")
    backend.dump()
    backend.dump()
    again = reopened(backend)
    assert (again.get("b", "ignore:"), again.get("b", "other"), again.in_("a"), again.in_("c")) == ("1", None, True, False)


def test_removing_is_immediate_and_setting_one_value_keeps_the_others(backend):
    for task in ("a", "b", "c"):
        backend.set(task, "result:", task)
        backend.set(task, "deps:", [])
    backend.remove("a")
    assert not backend.in_("a")
    assert not reopened(backend).in_("a")
    other = reopened(backend)
    other.set("b", "deps:", ["new"])
    assert reopened(backend).get("b", "result:") == "b"
    other.remove_all()
    assert not reopened(backend).in_("c")


def test_doit_still_saves_deps_last(tmp_path):
    """`backend.py` commits a task on "deps:": if doit changes the order, that must change too."""
    seen = []

    class Recording(SconifyBackend):
        def set(self, task_id, dependency, value):
            seen.append(dependency)
            super().set(task_id, dependency, value)

    (tmp_path / "source").write_text("1")
    state = Dependency(Recording, str(tmp_path / "state.db"), checker_cls=MD5Checker)
    task = Task("t", None, file_dep=[str(tmp_path / "source")])
    task.values, task.result = {"a": 1}, "text"
    state.save_success(task)
    assert seen[-1] == "deps:"
    assert seen.count("deps:") == 1
    state.close()


def test_threads_may_use_it_at_once(backend):
    def work(first):
        for number in range(first, first + 50):
            backend.set(str(number), "result:", number)
            backend.set(str(number), "deps:", [])
            assert backend.get(str(number), "result:") == number

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = reopened(backend)
    assert [again.get(str(number), "result:") for number in range(200)] == list(range(200))


def test_two_processes_that_make_the_file_at_once_agree(tmp_path):
    barrier = threading.Barrier(4)
    made = []

    def work():
        barrier.wait()
        made.append(SconifyBackend(str(tmp_path / "new.db"), JSONCodec()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4


def test_a_write_that_fails_is_a_state_error_and_can_be_tried_again(backend):
    backend.set("a", "result:", 1)
    blocker = sqlite3.connect(backend.name, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    backend._database.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(StateError, match="another run holds it"):
        backend.set("a", "deps:", [])
    blocker.execute("ROLLBACK")
    blocker.close()
    backend.dump()
    assert reopened(backend).get("a", "result:") == 1
