"""A worker process, from its fork to its end: takes one image after the other, and says what happens through its pipe.

It has every plan of the run in its memory, and opens connections and files of its own. Steps and their order are doit's here
as everywhere, and each step's state is saved when it ends.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from sconify_dodo.plan_all import Stale
from sconify_dodo.tasks import run_tasks, tasks_for
from sconify_dodo.work_list import WorkList
from sconify_tasks.errors import Interrupted, SconifyError
from sconify_tasks.events import Event, StepFailed
from sconify_tasks.forking import SIGNALS
from sconify_tasks.settled.recollection import SETTLES_SECONDS
from sconify_tasks.step import Outputs
from sconify_tasks.world import World

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.settled.gather import Gathered
    from sconify_tasks.settled.watch import Watch

_PR_SET_PDEATHSIG = 1
_BUNDLE_SECONDS = 0.05
_GARBAGE = 20_000
"""New objects until garbage is looked for. A worker is soon over."""

Gather: TypeAlias = "Callable[[Build, Mapping[str, Watch]], Gathered | None]"
"""See `Recollection.gather`."""


class Admit(Struct, frozen=True, kw_only=True):
    """A worker asks for room: a step will need so many bytes of memory. It goes on at the next answer."""

    size: int


class Release(Struct, frozen=True, kw_only=True):
    """The step that was last admitted has ended."""


class Answer(Struct, frozen=True, kw_only=True):
    """An image's end: the exit code, what its steps yielded until then, and a bug of ours that came up, as text.

    With it comes what was gathered of images that were made before.
    """

    image: str
    code: int
    settled: Mapping[str, Outputs] = field(default_factory=dict)
    fault: str = ""
    gathered: Sequence[Gathered] = ()


class Given(Struct, frozen=True, kw_only=True):
    """What a worker, the `number`-th, takes from the run that forks it.

    `allowance` is how many bytes of memory a step may use without asking.
    """

    number: int
    world: World
    stale: Stale
    work: WorkList
    state: Path
    keep_going: bool
    allowance: int
    gather: Gather


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
        self._sender: threading.Thread | None = None

    def tell(self, event: Event) -> None:
        """Send an event soon."""
        with self._lock:
            now = time.monotonic()
            self._waiting.append((now, event))
            if now - self._sent >= _BUNDLE_SECONDS:
                self._send(None)
            elif self._sender is None:
                self._sender = threading.Thread(target=self._send_late, name="events", daemon=True)
                self._sender.start()

    def send(self, message: Admit | Release | Answer | Sequence[Gathered]) -> None:
        """Send a message now, and the events before it."""
        with self._lock:
            self._send(message)

    def receive(self) -> Any:
        """Wait for what the run says."""
        return self._pipe.recv()

    def _send(self, message: Admit | Release | Answer | Sequence[Gathered] | None) -> None:
        waiting, self._waiting = self._waiting, []
        self._sent = time.monotonic()
        self._pipe.send((waiting, message))

    def _send_late(self) -> None:
        """Send what has waited for long enough, for as long as the worker lives."""
        with suppress(OSError):  # where the run is gone, the next message finds out
            while True:
                time.sleep(_BUNDLE_SECONDS)
                with self._lock:
                    if self._waiting:
                        self._send(None)


class Room:
    """Memory that the run's own process hands out, beyond what each worker has for its one step at a time."""

    def __init__(self, post: Post, allowance: int) -> None:
        self._post, self._allowance = post, allowance

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """As `MemoryBudget.admitted`."""
        if size <= self._allowance:
            yield
            return
        self._post.send(Admit(size=size))
        self._post.receive()
        try:
            yield
        finally:
            self._post.send(Release())


def live(pipe: Connection, foreign: list[Connection], given: Given, *, parent: int) -> NoReturn:
    """Make images while there are some. Never returns into the code that forked, nor runs its clean-up."""
    code = 1
    forgotten: list[object] = []  # the parent's: nothing may close or remove it here, so it is held until the end
    try:
        _die_with(parent)
        for end in foreign:
            end.close()
        gc.set_threshold(_GARBAGE)
        # From a terminal both reach every process: the run's own decides what becomes of its workers.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        post = Post(pipe)
        forgotten += given.world.forked(post.tell, Room(post, given.allowance))
        code = _live(post, given)
    finally:
        os._exit(code)


def _live(post: Post, given: Given) -> int:
    with suppress(EOFError, OSError, KeyboardInterrupt):
        if given.number > 0:
            load_steps(given.stale)
        notes = _Notes(given.gather)
        while (image := given.work.take(given.number)) is not None:
            answer = _made(image, given)
            if answer.code and not given.keep_going:
                given.work.stop()  # here, lest this worker begins another one
            post.send(replace(answer, gathered=notes.gathered()))
            if not answer.code:
                notes.add(given.stale[image][0])
        notes.wait()
        post.send(notes.gathered())
    with suppress(Exception):
        given.world.close()
        given.world.store.close()  # no interpreter ends here, which would do it
    return 0


class _Notes:
    """Has what is to be noted of an image gathered some time after its last write, while others are made."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._waiting: list[tuple[float, Build]] = []
        self._groups: dict[str, Watch] = {}

    def add(self, build: Build) -> None:
        """Note a build that is done now, later."""
        self._waiting.append((time.monotonic() + SETTLES_SECONDS, build))

    def gathered(self) -> list[Gathered]:
        """What can be told by now."""
        told: list[Gathered] = []
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, build = self._waiting.pop(0)
            found = None
            with suppress(Exception):  # the run gathers it, and tells what is wrong
                found = self._gather(build, self._groups)
            if found is not None:
                self._groups |= found.groups
                told.append(found)
        return told

    def wait(self) -> None:
        """Wait until all can be told."""
        if self._waiting:
            time.sleep(max(0, self._waiting[-1][0] - time.monotonic()))


def load_steps(stale: Stale) -> None:
    """Load the modules of the steps that may run."""
    for step in {miss.step.name: miss.step for _, misses in stale.values() for miss in misses}.values():
        _ = step.run


def _made(name: str, given: Given) -> Answer:
    build, misses = given.stale[name]
    if given.number % 2:
        misses = misses[::-1]  # in another order, as far as they may: else all come to the steps that images share at once

    def may_begin() -> None:
        if given.work.stopped:
            raise Interrupted("another image failed")

    try:
        tasks = tasks_for({name: (build, misses)}, before=may_begin)
        code = run_tasks(tasks, state=given.state, jobs=1, keep_going=given.keep_going, debug=False)
    except SconifyError as error:
        given.world.events.emit(StepFailed(image=name, step="build", message=str(error)))
        return Answer(image=name, code=error.exit_code, settled=dict(build.settled))
    except Exception as error:  # noqa: BLE001 - told where it can be reported
        return Answer(image=name, code=1, settled=dict(build.settled), fault=f"{type(error).__name__}: {error}")
    return Answer(image=name, code=code, settled=dict(build.settled))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before that could be said
