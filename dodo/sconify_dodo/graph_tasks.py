"""The whole graph as doit's task dictionaries: `sconify:IMAGE:STEP` under `sconify:IMAGE`, all under `sconify_images`.

For every command but `doit sconify`, whose name no task may have.

Nothing is opened for a list. Whether a task is up to date is asked of the action cache, and of doit's state: a task that doit
was told to forget runs again, and takes what the cache has.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from doit.exceptions import InvalidDodoFile, TaskFailed

from sconify_dodo.front import Order, make_build
from sconify_dodo.plan import GROUP, plan, takes_an_image
from sconify_tasks.environment import Environment, read_environment
from sconify_tasks.errors import SconifyError
from sconify_tasks.step import Step

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.project import Project
    from sconify_tasks.world import World

ALL = "sconify_images"


def project_tasks() -> Iterator[dict[str, Any]]:
    """Yield the tasks of all images of the nearest project; doit's own error for a project that can't be."""
    from sconify_dodo.project_build import read_project

    try:
        environment = read_environment(os.environ)
        ordered = read_project(environment)
    except SconifyError as error:
        raise InvalidDodoFile(str(error)) from error
    opened = _Opened(environment=environment, project=ordered.project)
    for order in ordered.orders:
        yield from _image_tasks(opened, order)
    groups = [f"{GROUP}:{order.name}" for order in ordered.orders]
    yield {"basename": ALL, "name": None, "doc": "make the confidential images of sconify.yaml", "task_dep": groups}


def _image_tasks(opened: _Opened, order: Order) -> Iterator[dict[str, Any]]:
    group = f"{GROUP}:{order.name}"
    yield {"basename": group, "name": None, "doc": f"make {order.options['to']}"}
    gates = [f"{GROUP}:{upstream}:deliver" for upstream in order.upstream]
    for step in plan(order.options):
        needs = [f"{group}:{name}" for name in sorted(step.upstream())]
        if takes_an_image(step):
            needs += gates
        yield {
            "basename": group,
            "name": step.name,
            "actions": [(opened.action(order, step),)],
            "task_dep": needs,
            "uptodate": [opened.is_up_to_date(order, step)],
            "clean": [opened.removal(order, step)] if step.effect else [],
            "io": {"capture": False},
            "verbosity": 2,
        }


@dataclass(slots=True, kw_only=True)
class _Opened:
    """The world and the builds, opened by the first task that needs them and closed with the process.

    `doit run -n 2 -P process` runs tasks in forks: what a fork finds open is its parent's, and held until its end.
    """

    environment: Environment
    project: Project
    _world: World | None = None
    _builds: dict[str, Build] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stack: ExitStack = field(default_factory=ExitStack)
    _builds_run: bool = False
    _process: int = field(default_factory=os.getpid)
    _parents: list[object] = field(default_factory=list)

    def action(self, order: Order, step: Step) -> Callable[[], dict[str, bool] | TaskFailed]:
        def run() -> dict[str, bool] | TaskFailed:
            try:
                build = self._build(order, runs=True)
                with self._lock:
                    for name in sorted(step.upstream()):
                        _known(build, name)
                build.execute(step)
            except SconifyError as error:
                return TaskFailed(str(error))  # whatever the reporter, a user's mistake has no traceback
            return {"done": True}

        return run

    def is_up_to_date(self, order: Order, step: Step) -> Callable[..., bool]:
        def uptodate(task: Any, values: Mapping[str, Any]) -> bool:  # noqa: ARG001 - doit's names
            if not values.get("done"):
                return False
            try:
                with self._lock:
                    return _known(self._build(order), step.name)
            except (SconifyError, OSError):
                return False  # said by the step itself, when it runs

        return uptodate

    def removal(self, order: Order, step: Step) -> Callable[[bool], None]:
        def clean(dryrun: bool) -> None:
            from sconify_tasks.removal import remove_outside

            try:
                for what in remove_outside(self._build(order), step, dry_run=dryrun):
                    sys.stdout.write(f"{GROUP}:{order.name}:{step.name} - removing {what}\n")
            except (SconifyError, OSError) as error:
                sys.stderr.write(f"ERROR: {GROUP}:{order.name}:{step.name}: {error}\n")

        return clean

    def _build(self, order: Order, *, runs: bool = False) -> Build:
        with self._lock:
            if self._process != os.getpid():
                self._begin_in_fork()
            if self._world is None:
                self._world = self._open()
            if runs and not self._builds_run:
                self._stack.enter_context(self._world.building())
                self._builds_run = True
            if order.name not in self._builds:
                self._builds[order.name] = make_build(self._world, order)
                self._stack.callback(self._builds[order.name].close)
            return self._builds[order.name]

    def _begin_in_fork(self) -> None:
        self._parents += [self._world, self._builds, self._stack]
        self._world, self._builds, self._stack, self._builds_run = None, {}, ExitStack(), False
        self._process = os.getpid()

    def _open(self) -> World:
        from sconify_tasks.events import Stream
        from sconify_tasks.ui import lines
        from sconify_tasks.world import open_world

        screen = lines(sys.stderr, no_color=self.environment.no_color)
        world = open_world(self.environment, project=self.project.name, events=Stream([screen]))
        self._stack.callback(world.close)
        Finalize(None, self._stack.close, exitpriority=0)  # at the end of a fork too, where atexit is not heard
        return world


def _known(build: Build, name: str) -> bool:
    """Settle a step from the cache, after all that it takes from; False where it, or one of those, must run."""
    if name in build.settled:
        return True
    step = next(step for step in build.steps if step.name == name)
    return all(_known(build, each) for each in sorted(step.upstream())) and build.settle(step)
