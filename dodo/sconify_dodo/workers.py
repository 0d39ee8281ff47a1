"""Worker processes for a run of many images: what a small image costs is mostly Python, which runs on one thread at a time.

A worker is a fork of the run after it has planned. It is handed whole images, one at a time, and sends back events and what
the steps yielded; one thread of the run waits for each. Actions that images share still run once: `flights` locks among
processes too. No worker outlives its run: the kernel kills it with its parent, and an end of its pipe ends it.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from mmap import mmap
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from sconify_dodo.plan_all import Stale
from sconify_dodo.worker import SIGNALS, Admit, Answer, Given, Release, live
from sconify_tasks.errors import Interrupted, SconifyError
from sconify_tasks.events import StepFailed
from sconify_tasks.world import World

_PATIENCE = 2.0
_LOOK_SECONDS = 0.01


class WorkerFault(Exception):  # noqa: N818 - a bug of ours that came up in a worker, on its way to where it is reported
    """What it was, as text: doit says "internal error"."""


class ImageFailed(SconifyError):  # noqa: N818 - said already, by the events of the step that failed
    """An image was not made in a worker; with the exit code that it came to there."""

    def __init__(self, image: str, code: int) -> None:
        super().__init__(f"{image} was not made")
        self.exit_code = code


@dataclass(slots=True, kw_only=True)
class Workers:
    """The workers of a run, each for one thread at a time. `code` is the exit code of what made the others stop."""

    world: World
    stale: Stale
    keep_going: bool
    stop: mmap
    idle: queue.SimpleQueue[Connection | None] = field(default_factory=queue.SimpleQueue)
    alive: int = 0
    over: bool = False
    code: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, image: str) -> None:
        """Have an image made; raises ImageFailed where it was not, after the stream was told why."""
        build, misses = self.stale[image]
        answer = self._answer(image)
        build.settled.update(answer.settled)
        if "deliver" in answer.settled and any(miss.step.name == "deliver" for miss in misses):
            self.world.delivered(build.options.text("to"))
        if answer.code and not self.keep_going:
            with self._lock:
                self.code = self.code or answer.code  # of those that stopped for it, some may be heard of before it is
            self.stop[0] = 1
        if answer.fault:
            raise WorkerFault(answer.fault)
        if answer.code:
            raise ImageFailed(image, self.code or answer.code)

    def _answer(self, image: str) -> Answer:
        worker = self.idle.get()
        if worker is None:  # the last one died
            self.idle.put(None)
            return self._lost(image)
        try:
            answer = self._asked(worker, image)
        except (EOFError, OSError):
            with self._lock:
                self.alive -= 1
                if not self.alive:
                    self.idle.put(None)
            return self._lost(image)
        self.idle.put(worker)
        return answer

    def _asked(self, worker: Connection, image: str) -> Answer:
        with ExitStack() as room:
            worker.send(image)
            while True:
                events, said = worker.recv()
                for at, event in () if self.over else events:
                    self.world.events.emit(event, at=at)
                if isinstance(said, Answer):
                    return said
                if isinstance(said, Admit):
                    room.enter_context(self.world.memory.admitted(said.size))
                    worker.send(None)
                elif isinstance(said, Release):
                    room.close()

    def _lost(self, image: str) -> Answer:
        if self.over:
            raise Interrupted("interrupted")
        message = (
            "the worker process that made it is gone: was it killed, perhaps for want of memory? -n 1 runs without workers"
        )
        self.world.events.emit(StepFailed(image=image, step="build", message=message))
        return Answer(code=1)


@contextmanager
def working(world: World, stale: Stale, *, count: int, state: Path, keep_going: bool) -> Iterator[Workers]:
    """Start workers that know these images, for the length of the block. No other thread may run."""
    assert threading.active_count() == 1
    if any(miss.step.name == "sign" for _, misses in stale.values() for miss in misses):
        for signer in world.signers.values():
            signer.signer()  # here, where a passphrase is asked for once
    world.let_go()
    gc.freeze()  # what is there is not looked through, and so not copied, by any worker's collections
    workers = Workers(world=world, stale=stale, keep_going=keep_going, stop=mmap(-1, 1))
    started: list[tuple[int, Connection]] = []
    try:
        for number in range(count):
            given = Given(
                world=world, stale=stale, state=state, keep_going=keep_going, stop=workers.stop, loads_first=number > 0
            )
            started.append(_start(given, [end for _, end in started]))
            workers.alive += 1
            workers.idle.put(started[-1][1])
        yield workers
    except BaseException:
        workers.over = True
        for pid, _ in started:
            os.kill(pid, signal.SIGTERM)
        raise
    finally:
        gc.unfreeze()
        _end(started)


def _start(given: Given, others: list[Connection]) -> tuple[int, Connection]:
    ours, theirs = Pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            live(theirs, [*others, ours], given, parent=parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return pid, ours


def _end(started: list[tuple[int, Connection]]) -> None:
    """Wait for the workers' end; kill those that don't come to it. Nothing is asked of them any more."""
    for _, end in started:
        end.close()
    until = time.monotonic() + _PATIENCE
    for pid, _ in started:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(_LOOK_SECONDS)
