"""What is stale becomes doit tasks: `sconify:IMAGE:STEP`, under `sconify:IMAGE`, under `sconify`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from doit.control import TaskControl
from doit.dependency import Dependency, JSONCodec, MD5Checker
from doit.runner import MThreadRunner, Runner
from doit.task import Stream, Task

from sconify_dodo.backend import SconifyBackend, StateError
from sconify_dodo.plan import GROUP, takes_an_image
from sconify_dodo.reporter import SconifyReporter, reported
from sconify_tasks.build import Build, Miss
from sconify_tasks.errors import SconifyError
from sconify_tasks.step import Step

if TYPE_CHECKING:
    from sconify_dodo.workers import Workers

NOWHERE = Path(":memory:")
"""For `run_tasks`: doit's state of tasks whose own steps are saved by those who run them."""
LOOK_UP_SECONDS = 0.25
"""How long the main thread waits in one go: a signal that comes just before a wait is seen when that ends."""


def tasks_for(
    stale: Mapping[str, tuple[Build, Sequence[Miss]]],
    *,
    waits: Mapping[str, Sequence[str]] = MappingProxyType({}),
    before: Callable[[], None] = lambda: None,
) -> list[Task]:
    """Return one task a stale step, a group an image, and the group of all.

    `waits` says which images an image is made from that are stale themselves: it is looked at when they are delivered.
    `before` is called before each step, and may refuse it.
    """
    tasks: list[Task] = []
    for name, (build, misses) in stale.items():
        stale_steps = {miss.step.name for miss in misses}
        gates = [f"{GROUP}:{upstream}:deliver" for upstream in waits.get(name, ())]
        steps = [_task(build, miss.step, stale_steps, gates, before) for miss in misses]
        tasks += steps
        tasks.append(Task(f"{GROUP}:{name}", None, task_dep=[task.name for task in steps], has_subtask=True))
    tasks.append(Task(GROUP, None, task_dep=[f"{GROUP}:{name}" for name in stale], has_subtask=True))
    return tasks


def image_tasks(workers: Workers) -> list[Task]:
    """Return one task a stale image, made by a worker, and the group of all."""
    tasks = [
        Task(
            f"{GROUP}:{image}",
            [(reported(workers.make), [image])],
            uptodate=[False],
            io={"capture": False},
            verbosity=2,
        )
        for image in workers.stale
    ]
    return [*tasks, Task(GROUP, None, task_dep=[task.name for task in tasks], has_subtask=True)]


def run_tasks(tasks: list[Task], *, state: Path, jobs: int, keep_going: bool, debug: bool) -> int:
    """Run everything; return the exit code. `jobs` threads at once: hashing, AES and I/O release the GIL."""
    import sys

    state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reporter = SconifyReporter(sys.stderr, quiet=True, debug=debug)
    manager = _State(SconifyBackend, str(state), checker_cls=MD5Checker, codec_cls=JSONCodec)
    control = TaskControl(tasks)
    control.process([GROUP])
    arguments: list[Any] = [manager, reporter, keep_going, False, Stream(0)]
    runner = _ThreadRunner(*arguments, jobs) if jobs > 1 else Runner(*arguments)
    result = runner.run_all(control.task_dispatcher())
    return reporter.exit_code or int(result != 0)


class _State(Dependency):  # type: ignore[misc]
    """doit's state, which what is stale does not rest on."""

    def remove_success(self, task: Task) -> None:
        """As `Dependency.remove_success`. doit calls it before it reports a failure: that one is what is to be said."""
        with suppress(StateError):
            super().remove_success(task)


class _WakingQueue(queue.Queue):  # type: ignore[type-arg]
    """A queue that looks up now and then while it waits.

    A signal that arrives between Python's last look at its signals and the wait of a lock is seen only when the wait ends:
    without this, such a Ctrl-C would be lost until a step finishes.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `Queue.get`."""
        while block and timeout is None:
            try:
                return super().get(timeout=LOOK_UP_SECONDS)
            except queue.Empty:
                continue
        return super().get(block, timeout)


class _ThreadRunner(MThreadRunner):  # type: ignore[misc]
    Queue = staticmethod(_WakingQueue)


def _task(build: Build, step: Step, stale: set[str], gates: list[str], before: Callable[[], None]) -> Task:
    image = build.name
    needs = [f"{GROUP}:{image}:{name}" for name in sorted(step.upstream() & stale)]
    if takes_an_image(step):
        needs += gates
    return Task(
        f"{GROUP}:{image}:{step.name}",
        [(reported(_action(build, step, before)),)],
        task_dep=needs,
        # Known to be stale now; or downstream of something stale, where only its outputs tell.
        uptodate=[_settles(build, step)] if needs or gates else [False],
        io={"capture": False},
        verbosity=2,
    )


def _action(build: Build, step: Step, before: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        before()
        build.execute(step)

    return run


def _settles(build: Build, step: Step) -> Callable[[], bool]:
    def uptodate() -> bool:
        try:
            return build.cut_off(step)
        except (SconifyError, OSError):
            return False  # what it takes from outside can't be had: said by the step itself, so that others may go on

    return uptodate
