"""doit prints progress and errors on stderr, a line each, and leaves stdout to results."""

import io
import sys

import pytest
from doit.exceptions import TaskError, TaskFailed, UnmetDependency
from doit.task import Task

from sconify_dodo.reporter import SconifyReporter, StepFailure, reported
from sconify_tasks.errors import SconifyError, UnavailableError, UsageError

DODO = """
import atexit
import sys
import time

from sconify_dodo.reporter import reported
from sconify_tasks.errors import UnavailableError

DOIT_CONFIG = {"reporter": "sconify", "backend": "sconify", "default_tasks": ["fine"]}
IO = {"capture": False}


def refuse():
    raise UnavailableError("base image debian:12 is not there", hint="name one with --base")


def crash():
    raise KeyError("oops")


def slow(number):
    time.sleep(0.002 * (number % 5))


def shout():
    print("a result")


def task_fine():
    return {"actions": [(slow, [1])], "io": IO, "file_dep": ["dodo.py"]}


def task_refused():
    return {"actions": [reported(refuse)], "io": IO}


def task_crashed():
    return {"actions": [crash], "io": IO}


def task_result():
    return {"actions": [shout], "io": IO, "verbosity": 2}


def task_after():
    return {"actions": [shout], "task_dep": ["refused"], "io": IO}


def task_many():
    atexit.register(lambda: print("stdout is", "alive"))
    for number in range(40):
        yield {"name": str(number), "actions": [(slow, [number])], "io": IO}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dodo.py").write_text(DODO)
    return tmp_path


def run(doit, *arguments):
    found = doit("run", *arguments)
    return found.returncode, found.stdout.replace("stdout is alive\n", ""), found.stderr


@pytest.mark.usefixtures("folder")
def test_progress_goes_to_stderr_and_what_is_up_to_date_is_silent(doit):
    assert run(doit) == (0, "", "fine\n")
    assert run(doit) == (0, "", "")


@pytest.mark.usefixtures("folder")
def test_only_results_go_to_stdout(doit):
    assert run(doit, "result") == (0, "a result\n", "result\n")


@pytest.mark.usefixtures("folder")
def test_a_users_error_is_a_line_and_a_hint(doit):
    code, out, err = run(doit, "refused")
    assert (code, out) == (1, "")
    assert err == "refused\nerror: refused: base image debian:12 is not there\n  hint: name one with --base\n"


@pytest.mark.usefixtures("folder")
def test_an_internal_error_is_a_line_and_has_a_traceback_when_debugging(doit):
    code, out, err = run(doit, "crashed")
    assert (code, out) == (2, "")
    assert err == "crashed\nerror: crashed: internal error: KeyError: 'oops' (--failure-verbosity=1 shows where)\n"
    code, out, err = run(doit, "--failure-verbosity=1", "crashed")
    assert 'raise KeyError("oops")' in err
    assert out == ""


@pytest.mark.usefixtures("folder")
def test_what_could_not_run_names_what_failed(doit):
    _, out, err = run(doit, "--continue", "after")
    assert "error: after: not run, because it needs what failed: refused\n" in err
    assert out == ""


def test_output_can_go_to_a_file(doit, folder):
    assert run(doit, "-o", "out.txt", "refused") == (1, "", "")
    assert (folder / "out.txt").read_text().startswith("refused\nerror: refused: base image")


@pytest.mark.usefixtures("folder")
def test_threads_without_capture_leave_stdout_alive(doit):
    found = doit("run", "-n", "8", "-P", "thread", "many")
    assert (found.returncode, found.stdout) == (0, "stdout is alive\n")
    assert sorted(found.stderr.split()) == sorted(f"many:{number}" for number in range(40))


def reporter(**more):
    out = io.StringIO()
    return SconifyReporter(out, {"failure_verbosity": 0}, **more), out


def test_a_failure_carries_its_exit_code_and_the_first_one_counts():
    told, _ = reporter()
    told.add_failure(Task("a", None), StepFailure(UnavailableError("x")))
    told.add_failure(Task("b", None), StepFailure(UsageError("y")))
    told.add_failure(Task("c", None), TaskError("z"))
    assert told.exit_code == 3
    assert [name for name, _ in told.failures] == ["a", "b", "c"]


def test_a_failure_that_is_not_to_be_reported_counts_in_silence():
    told, out = reporter()
    told.add_failure(Task("a", None), TaskFailed("x", report=False))
    assert (told.exit_code, out.getvalue()) == (1, "")


def test_errors_of_doit_itself_are_lines():
    told, out = reporter()
    told.runtime_error("Task 'a' is\ncyclic")
    told.cleanup_error(UnmetDependency("teardown"))
    assert out.getvalue() == "error: Task 'a' is cyclic\nerror: teardown\n"
    assert told.exit_code == 1


def test_quiet_leaves_steps_to_others_and_prints_internal_errors_only():
    told, out = reporter(quiet=True)
    task = Task("a", ["true"])
    told.execute_task(task)
    told.skip_ignore(task)
    told.add_failure(task, StepFailure(UsageError("told elsewhere")))
    told.add_failure(task, UnmetDependency("b"))
    told.add_failure(task, TaskFailed("broken"))
    assert out.getvalue() == "error: a: broken\n"
    assert told.exit_code == 2


def test_groups_and_private_tasks_are_silent():
    told, out = reporter()
    told.execute_task(Task("group", None))
    told.execute_task(Task("_private", ["true"]))
    assert out.getvalue() == ""


def test_control_characters_do_not_reach_the_terminal():
    told, out = reporter(debug=True)
    told.add_failure(Task("a", None), StepFailure(SconifyError("file \x1b]0;pwned\x07 caf\udce9\nerror: b", hint="\x9b2J")))
    printed = out.getvalue()
    assert printed.startswith("error: a: file \\x1b]0;pwned\\x07 caf\\udce9 error: b\n  hint: \\x9b2J\n")
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    assert printed.encode()


def test_only_our_errors_are_caught_by_reported():
    def run(outcome):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert reported(run)({"a": 1}) == {"a": 1}
    failure = reported(run)(UsageError("no", hint="yes"))
    assert (failure.message, failure.hint, failure.exit_code) == ("no", "yes", 2)
    with pytest.raises(ZeroDivisionError):
        reported(run)(ZeroDivisionError())


def test_stdout_is_never_taken_for_progress(capsys):
    told = SconifyReporter(sys.stdout, {})
    told.execute_task(Task("a", ["true"]))
    assert capsys.readouterr() == ("", "a\n")
