"""A worker process, from its fork to its end: makes one image at a time, and says what happens through its pipe.

It has every plan of the run in its memory, and opens connections and files of its own. Steps and their order are doit's here
as everywhere, and each step's state is saved when it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from mmap import mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct, field

from sconify_dodo.plan_all import Stale
from sconify_dodo.tasks import run_tasks, tasks_for
from sconify_tasks.errors import Interrupted, SconifyError
from sconify_tasks.events import Event, StepFailed
from sconify_tasks.step import Outputs
from sconify_tasks.world import World

_PR_SET_PDEATHSIG = 1
_BUNDLE_SECONDS = 0.05
SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""Blocked around a fork, until each side has its own way to take them."""


class Admit(Struct, frozen=True, kw_only=True):
    """A worker asks for room: a step will need so many bytes of memory. It goes on at the next answer."""

    size: int


class Release(Struct, frozen=True, kw_only=True):
    """The step that was last admitted has ended."""


class Answer(Struct, frozen=True, kw_only=True):
    """An image's end: the exit code, what its steps yielded until then, and a bug of ours that came up, as text."""

    code: int
    settled: Mapping[str, Outputs] = field(default_factory=dict)
    fault: str = ""


class Given(Struct, frozen=True, kw_only=True):
    """What a worker takes from the run that forks it. `stop` is one byte that all see: not 0 once no step is to begin."""

    world: World
    stale: Stale
    state: Path
    keep_going: bool
    stop: mmap
    loads_first: bool


class Post:
    """A worker's side of its pipe. Events go in bundles, each with its time; the first one after a pause goes at once.

    A message that the run takes one by one costs its process more than the events are worth, while the workers need its
    processors.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, Event]] = []
        self._sent = 0.0
        self._late: threading.Timer | None = None

    def tell(self, event: Event) -> None:
        """Send an event soon."""
        with self._lock:
            now = time.monotonic()
            self._waiting.append((now, event))
            if now - self._sent >= _BUNDLE_SECONDS:
                self._send(None)
            elif self._late is None:
                self._late = threading.Timer(_BUNDLE_SECONDS, self._send_late)
                self._late.daemon = True
                self._late.start()

    def send(self, message: Admit | Release | Answer) -> None:
        """Send a message now, and the events before it."""
        with self._lock:
            self._send(message)

    def receive(self) -> Any:
        """Wait for what the run says."""
        return self._pipe.recv()

    def _send(self, message: Admit | Release | Answer | None) -> None:
        waiting, self._waiting = self._waiting, []
        self._sent = time.monotonic()
        self._pipe.send((waiting, message))

    def _send_late(self) -> None:
        with self._lock, suppress(OSError):  # where the run is gone, the next message finds out
            self._late = None
            if self._waiting:
                self._send(None)


class Room:
    """Memory that the run's own process hands out."""

    def __init__(self, post: Post) -> None:
        self._post = post

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """As `MemoryBudget.admitted`."""
        self._post.send(Admit(size=size))
        self._post.receive()
        try:
            yield
        finally:
            self._post.send(Release())


def live(pipe: Connection, foreign: list[Connection], given: Given, *, parent: int) -> NoReturn:
    """Serve until the pipe's other end is closed. Never returns into the code that forked, nor runs its clean-up."""
    code = 1
    forgotten: list[object] = []  # the parent's: nothing may close or remove it here, so it is held until the end
    try:
        _die_with(parent)
        for end in foreign:
            end.close()
        # From a terminal both reach every process: the run's own decides what becomes of its workers.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        post = Post(pipe)
        forgotten += given.world.forked(post.tell, Room(post))
        code = _live(post, given)
    finally:
        os._exit(code)


def _live(post: Post, given: Given) -> int:
    with suppress(EOFError, OSError, KeyboardInterrupt):
        if given.loads_first:
            load_steps(given.stale)
        while True:
            post.send(_made(post.receive(), given))
    with suppress(Exception):
        given.world.close()
        given.world.store.close()  # no interpreter ends here, which would do it
    return 0


def load_steps(stale: Stale) -> None:
    """Load the modules of the steps that may run."""
    for step in {miss.step.name: miss.step for _, misses in stale.values() for miss in misses}.values():
        _ = step.run


def _made(name: str, given: Given) -> Answer:
    build, misses = given.stale[name]

    def may_begin() -> None:
        if given.stop[0]:
            raise Interrupted("another image failed")

    try:
        tasks = tasks_for({name: (build, misses)}, before=may_begin)
        code = run_tasks(tasks, state=given.state, jobs=1, keep_going=given.keep_going, debug=False)
    except SconifyError as error:
        given.world.events.emit(StepFailed(image=name, step="build", message=str(error)))
        return Answer(code=error.exit_code, settled=dict(build.settled))
    except Exception as error:  # noqa: BLE001 - told where it can be reported
        return Answer(code=1, settled=dict(build.settled), fault=f"{type(error).__name__}: {error}")
    return Answer(code=code, settled=dict(build.settled))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before that could be said
