"""What happens during a build, as frozen values on one stream. Rendering is the subscribers' business."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import ClassVar

from msgspec import Struct, field


class Event(Struct, frozen=True, kw_only=True):
    """Base of all events. `image` is the image's name in the project, or its TO reference."""

    kind: ClassVar[str] = "event"
    image: str = ""


class PlanMade(Event, frozen=True, kw_only=True):
    """An image has something to do: of `steps` in all, the `stale` ones run unless what they take turns out as before.

    `needs` names, for each stale step, the stale steps whose outputs it takes; `after` the images that it is made from.
    """

    kind: ClassVar[str] = "plan"
    steps: int
    stale: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    after: tuple[str, ...] = ()


class StepExplained(Event, frozen=True, kw_only=True):
    """Why a step ran or did not, with --explain. `state` is `cached`, `run` or `cut-off`; one reason a line.

    Names of protected files are among the reasons; values of secret options and content digests are not.
    """

    kind: ClassVar[str] = "explained"
    step: str
    state: str
    reasons: tuple[str, ...] = ()


class StepStarted(Event, frozen=True, kw_only=True):
    """A step begins to run (it was not in the cache); `why` names what changed, if known."""

    kind: ClassVar[str] = "step-started"
    step: str
    why: str = ""


class StepFinished(Event, frozen=True, kw_only=True):
    """A step ended. `cached` says that its outputs came from the action cache; `counts` is what it did, by name."""

    kind: ClassVar[str] = "step-finished"
    step: str
    cached: bool
    seconds: float
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class StepFailed(Event, frozen=True, kw_only=True):
    """A step raised."""

    kind: ClassVar[str] = "step-failed"
    step: str
    message: str


class Progressed(Event, frozen=True, kw_only=True):
    """A running step has worked through `done` bytes; `total` is 0 where nobody knows how many there are."""

    kind: ClassVar[str] = "progress"
    step: str
    done: int
    total: int = 0


class LayerDelivered(Event, frozen=True, kw_only=True):
    """A layer of the finished image is where it was to go; `reused` where it was there already. `size` is in bytes."""

    kind: ClassVar[str] = "layer-delivered"
    step: str
    diff_id: str
    size: int
    reused: bool


class Warned(Event, frozen=True, kw_only=True):
    """Something the user should know but that does not stop the build."""

    kind: ClassVar[str] = "warning"
    message: str


class Noted(Event, frozen=True, kw_only=True):
    """A fact worth a line: the resolved base digest, which engine was used."""

    kind: ClassVar[str] = "note"
    message: str


class Detail(Event, frozen=True, kw_only=True):
    """A line for --verbose: an artifact's text, with secrets already masked."""

    kind: ClassVar[str] = "detail"
    message: str


class RunFinished(Event, frozen=True, kw_only=True):
    """The last event of a run: its exit code, and how long it took in all. `image` is empty."""

    kind: ClassVar[str] = "run-finished"
    code: int
    seconds: float


Subscriber = Callable[[Event], None]


class Stream(Struct):
    """Fan events out to subscribers; safe to emit on from several threads."""

    subscribers: list[Subscriber] = field(default_factory=list)
    _at: float = 0.0
    _lock: Lock = field(default_factory=Lock)
    _interrupted: bool = False
    _finished: bool = False

    def interrupted(self) -> None:
        """Hear nothing more but the end: what threads run into, when the run is taken down around them, is no failure."""
        with self._lock:
            self._interrupted = True

    def clock(self) -> float:
        """For subscribers: when the event that they are handed happened, in seconds of the monotonic clock."""
        return self._at

    def emit(self, event: Event, *, at: float | None = None) -> None:
        """Hand the event to each subscriber, one event at a time; RunFinished is the last one that anybody hears.

        One that comes late, from another process, says `at` which time it happened.

        A run that was interrupted ends while its threads still work. What they say then is of no use, and a thread that
        writes while the interpreter ends would have the process aborted.
        """
        with self._lock:
            if self._finished or (self._interrupted and not isinstance(event, RunFinished)):
                return
            self._finished = isinstance(event, RunFinished)
            self._at = time.monotonic() if at is None else at
            for subscriber in self.subscribers:
                subscriber(event)
