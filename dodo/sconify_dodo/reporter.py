"""What doit prints while sconify runs: progress and errors on stderr, one line each, and nothing on stdout.

How a task must be made for this to hold (doit 0.37):

- `io: {"capture": False}` on every task with a Python action. With capture, doit swaps sys.stdout and sys.stderr for
  every action, and with `-P thread` two actions that overlap restore each other's: sys.stdout stays a dead Writer.
- Any `verbosity`. Without capture doit still assigns sys.stdout and sys.stderr around an action, but to the streams that
  they are, which is harmless as long as no other task captures. Results go to a handle saved before the run starts.
- `actions: [(reported(run), [...])]`: doit formats an action's exception into text and drops it, so `reported` catches
  a SconifyError where it still has its message, hint and exit code. Everything else stays an internal error.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TextIO, TypeVar

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency

from sconify_tasks.errors import SconifyError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_INTERNAL = 1


class StepFailure(TaskFailed):  # type: ignore[misc]
    """A SconifyError on its way through doit."""

    def __init__(self, error: SconifyError) -> None:
        super().__init__(error.message)
        self.hint = error.hint
        self.exit_code = error.exit_code
        self.traceback = _traceback(error)


def reported(action: Callable[_P, _R]) -> Callable[_P, _R | StepFailure]:
    """Wrap a Python action so that a SconifyError becomes a failure that says its message and hint."""

    @functools.wraps(action)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R | StepFailure:
        try:
            return action(*args, **kwargs)
        except SconifyError as error:
            return StepFailure(error)

    return run


class SconifyReporter:
    """A doit reporter (`reporter = "sconify"`, entry point group doit.REPORTER); also usable as an instance.

    `outstream` is ignored where it is stdout, which carries results only; `doit -o FILE` still gets the lines. `quiet`
    leaves progress and the errors of steps to somebody else (the events' renderer) and prints internal errors only.
    `debug`, or doit's `--failure-verbosity=1`, adds tracebacks. After the run, `exit_code` is what the process should
    exit with.
    """

    desc = "progress and errors on stderr, nothing on stdout"

    def __init__(
        self, outstream: TextIO, options: dict[str, Any] | None = None, *, quiet: bool = False, debug: bool = False
    ) -> None:
        # Kept now: sys.stderr may be swapped while tasks run.
        self._stream = sys.stderr if outstream in (sys.stdout, sys.__stdout__) else outstream
        self._debug = debug or bool((options or {}).get("failure_verbosity"))
        self._quiet = quiet
        self.exit_code = 0
        self.failures: list[tuple[str, BaseFail]] = []

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Note nothing: tasks are loaded, nothing has run."""

    def get_status(self, task: Any) -> None:
        """Note nothing: a task is about to be checked."""

    def execute_task(self, task: Any) -> None:
        """Print the title of a task that runs; groups and private tasks (`_name`) are silent."""
        if task.actions and not task.name.startswith("_") and not self._quiet:
            self._line(task.title())

    def add_success(self, task: Any) -> None:
        """Note nothing: a task has run."""

    def skip_uptodate(self, task: Any) -> None:
        """Note nothing: a task was up to date."""

    def skip_ignore(self, task: Any) -> None:
        """Say that `doit ignore` holds a task back."""
        if not self._quiet:
            self._line(f"{task.title()}: ignored")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Print one line for the failure, one for the hint, and the traceback when debugging."""
        self.failures.append((task.name, fail))
        if not self.exit_code:
            self.exit_code = getattr(fail, "exit_code", _INTERNAL)
        if not fail.report or (self._quiet and isinstance(fail, StepFailure | UnmetDependency) and not self._debug):
            return
        self._line(f"error: {task.name}: {self._reason(fail)}")
        if hint := getattr(fail, "hint", ""):
            self._line(f"  hint: {hint}")
        if self._debug and fail.traceback:
            self._stream.write(_harmless("".join(fail.traceback), keep="\n"))
        self._stream.flush()

    def cleanup_error(self, exception: BaseFail) -> None:
        """Report a teardown that failed."""
        self._fault(exception.message)

    def runtime_error(self, msg: str) -> None:
        """Report an error of doit itself: a bad task, a cycle."""
        self._fault(msg)

    def teardown_task(self, task: Any) -> None:
        """Note nothing: a teardown begins."""

    def complete_run(self) -> None:
        """Note nothing: every line was printed when it was due."""

    def _reason(self, fail: BaseFail) -> str:
        if isinstance(fail, StepFailure):
            return str(fail.message)
        if isinstance(fail, UnmetDependency):
            return f"not run, because it needs what failed: {fail.message}"
        if fail.traceback:
            # The last line of a formatted exception is "Type: message".
            last = str(fail.traceback[-1]).strip().splitlines()[-1:] or [fail.get_name()]
            return f"internal error: {last[0]}" + ("" if self._debug else " (--failure-verbosity=1 shows where)")
        return str(fail.message)

    def _fault(self, message: str) -> None:
        self.exit_code = self.exit_code or _INTERNAL
        self._line(f"error: {message}")

    def _line(self, text: str) -> None:
        self._stream.write(_harmless(" ".join(text.split("\n"))) + "\n")
        self._stream.flush()


def _traceback(error: SconifyError) -> list[str]:
    import traceback

    return traceback.format_exception(error)


def _harmless(text: str, *, keep: str = "") -> str:
    """Escape control characters: names come from images, and a terminal obeys what is printed to it."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
