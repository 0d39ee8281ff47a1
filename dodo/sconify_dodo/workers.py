"""Worker processes for a run of many images: what a small image costs is mostly Python, which runs on one thread at a time.

A worker is a fork of the run after it has planned. It takes whole images off a list that all share, one after the other, and
sends back events, what the steps yielded, and what is to be noted; one thread of the run listens to each. Actions that images
share still run once: `flights` locks among processes too. No worker outlives its run: the kernel kills it with its parent,
and an end of its pipe ends it.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sconify_cache.wal import pauses
from sconify_dodo.plan_all import Stale
from sconify_dodo.tasks import LOOK_UP_SECONDS
from sconify_dodo.work_list import WorkList
from sconify_dodo.worker import Admit, Answer, Gather, Given, Release, live
from sconify_tasks.errors import Interrupted, SconifyError
from sconify_tasks.events import StepFailed
from sconify_tasks.forking import signals_blocked
from sconify_tasks.memory_budget import MemoryBudget
from sconify_tasks.world import World

if TYPE_CHECKING:
    from sconify_tasks.settled.gather import Gathered

_PATIENCE = 2.0
_ALLOWANCE = 40 << 20
"""Bytes that a worker's step may use without asking: a heavy one with small trees (`working_set`)."""


class WorkerFault(Exception):  # noqa: N818 - a bug of ours that came up in a worker, on its way to where it is reported
    """What it was, as text: doit says "internal error"."""


class ImageFailed(SconifyError):  # noqa: N818 - said already, by the events of the step that failed
    """An image was not made in a worker; with the exit code that it came to there."""

    def __init__(self, image: str, code: int) -> None:
        super().__init__(f"{image} was not made")
        self.exit_code = code


@dataclass(slots=True, kw_only=True)
class Workers:
    """The workers of a run. `code` is the exit code of what made the others stop; `gathered` what they gathered, by image."""

    world: World
    stale: Stale
    work: WorkList
    keep_going: bool
    over: bool = False
    code: int = 0
    gathered: dict[str, Gathered] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)
    _listeners: list[threading.Thread] = field(default_factory=list)
    _alive: int = 0
    _fault: str = ""
    _deaf: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def make(self, image: str) -> None:
        """Wait until an image is made; raises ImageFailed where it was not, after the stream was told why."""
        answer = self._answer(image)
        fault = answer.fault or self._deaf or (self._fault if not self.keep_going else "")
        if fault:
            raise WorkerFault(fault)
        if answer.code:
            raise ImageFailed(image, self.code or answer.code)

    def listen(self, number: int, worker: Connection) -> None:
        """Hear a worker, from now on until its end, on a thread."""
        self._alive += 1
        self._listeners.append(threading.Thread(target=self._hear, args=(number, worker), name=f"worker {number}", daemon=True))
        self._listeners[-1].start()

    def wait(self) -> None:
        """Wait until all have ended."""
        for listener in self._listeners:
            while listener.is_alive():
                listener.join(LOOK_UP_SECONDS)

    def _answer(self, image: str) -> Answer:
        with self._changed:
            while not self._is_clear(image) and self._alive:
                self._changed.wait(LOOK_UP_SECONDS)
            answer = self._answers.get(image)
        if answer is not None:
            return answer
        return Answer(image=image, code=self.code) if self.work.stopped else self._lost(image)

    def _is_clear(self, image: str) -> bool:
        """Whether it is known how an image ended; of one that stopped for another, how that one did."""
        answer = self._answers.get(image)
        return answer is not None and (answer.code != Interrupted.exit_code or bool(self.code))

    def _hear(self, number: int, worker: Connection) -> None:
        try:
            with ExitStack() as room:
                while (message := _received(worker)) is not None:
                    events, said = message
                    for at, event in () if self.over else events:
                        self.world.events.emit(event, at=at)
                    if isinstance(said, Answer):
                        self._take(said)
                    elif isinstance(said, Admit):
                        room.enter_context(self.world.memory.admitted(said.size))
                        with suppress(OSError):  # it died meanwhile
                            worker.send(None)
                    elif isinstance(said, Release):
                        room.close()
                    elif said is not None:
                        self._keep(said)
            image = self.work.held_by(number)
            if image is not None and image not in self._answers and not self.over:
                self._take(self._lost(image))
        except Exception as error:  # noqa: BLE001 - told where it can be reported
            worker.close()  # it hears so when it says something
            with self._changed:
                self._deaf, self.code = self._deaf or f"{type(error).__name__}: {error}", self.code or 1
                self.work.stop()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()

    def _keep(self, gathered: Sequence[Gathered]) -> None:
        self.gathered.update((found.image.name, found) for found in gathered)

    def _take(self, answer: Answer) -> None:
        self._keep(answer.gathered)
        build, misses = self.stale[answer.image]
        build.settled.update(answer.settled)
        with self._changed:
            if "deliver" in answer.settled and any(miss.step.name == "deliver" for miss in misses):
                self.world.delivered(build.options.text("to"))
            if answer.code and not self.keep_going:
                if answer.code != Interrupted.exit_code:
                    self.code = self.code or answer.code
                self.work.stop()
            self._fault = self._fault or answer.fault
            self._answers[answer.image] = answer
            self._changed.notify_all()

    def _lost(self, image: str) -> Answer:
        if self.over:
            raise Interrupted("interrupted")
        message = (
            "the worker process that made it is gone: was it killed, perhaps for want of memory? -n 1 runs without workers"
        )
        self.world.events.emit(StepFailed(image=image, step="build", message=message))
        return Answer(image=image, code=1)


@contextmanager
def working(world: World, stale: Stale, *, count: int, state: Path, keep_going: bool, gather: Gather) -> Iterator[Workers]:
    """Start workers that make these images; at the end of the block wait for theirs. No other thread may run."""
    assert threading.active_count() == 1
    if any(miss.step.name == "sign" for _, misses in stale.values() for miss in misses):
        for signer in world.signers.values():
            signer.signer()  # here, where a passphrase is asked for once
    world.let_go()
    assert isinstance(world.memory, MemoryBudget), "a worker has no workers"
    gc.freeze()  # what is there is not looked through, and so not copied, by any worker's collections
    started: list[tuple[int, Connection]] = []
    with WorkList(stale, workers=count) as work, world.memory.set_aside(shares=count, size=_ALLOWANCE) as allowance:
        workers = Workers(world=world, stale=stale, work=work, keep_going=keep_going)
        try:
            for number in range(count):
                given = Given(
                    number=number,
                    world=world,
                    stale=stale,
                    work=work,
                    state=state,
                    keep_going=keep_going,
                    allowance=allowance,
                    gather=gather,
                )
                _start(given, started)
            for number, (_, end) in enumerate(started):
                workers.listen(number, end)
            yield workers
            workers.wait()
        except BaseException:
            workers.over = True
            for pid, _ in started:
                os.kill(pid, signal.SIGTERM)
            raise
        finally:
            gc.unfreeze()
            until = time.monotonic() + _PATIENCE
            for pid, _ in started:
                _end(pid, until)
            workers.wait()
            for _, end in started:
                end.close()


def _received(worker: Connection) -> Any:
    """What a worker says next; None once it has ended."""
    try:
        return worker.recv()
    except (EOFError, OSError):
        return None


def _start(given: Given, started: list[tuple[int, Connection]]) -> None:
    """Fork a worker, and add it to those that are started before any signal can be heard."""
    ours, theirs = Pipe()
    parent = os.getpid()
    with signals_blocked():
        pid = os.fork()
        if pid == 0:
            live(theirs, [ours, *(end for _, end in started)], given, parent=parent)
        started.append((pid, ours))
        theirs.close()


def _end(pid: int, until: float) -> None:
    """Wait for a worker's end; kill it where it has not come to it by then. Nothing is asked of it any more."""
    with suppress(ChildProcessError):  # SIGCHLD is ignored, and the kernel took it
        for pause in pauses(max(0, until - time.monotonic())):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                return
            if pause is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(pause)
