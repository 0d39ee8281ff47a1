"""What one run of a step has worked through: bytes as they go by, and counts of what was done and what was saved.

A step calls `Context.progress` once a chunk, from any of its threads: that costs an addition, and an event at most ten
times a second.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from sconify_tasks.events import Event, Progressed

_SECONDS_BETWEEN = 0.1


@dataclass(slots=True, kw_only=True)
class Meter:
    """One step's counters. `emit` is called without the lock."""

    image: str
    step: str
    emit: Callable[[Event], None]
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _said: int = 0
    _due: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def progress(self, count: int, total: int | None) -> None:
        """Note `count` bytes more, of `total` in all where that is known."""
        with self._lock:
            self.done += count
            known = self.total if total is None else total
            self.total = max(self.done, known) if known else 0
            now = self.clock()
            if now < self._due:
                return
            self._due = now + _SECONDS_BETWEEN
            event = self._event()
        self.emit(event)

    def count(self, what: str, number: int) -> None:
        """Note `number` more of what the summary names."""
        with self._lock:
            self.counts[what] += number

    def finish(self) -> None:
        """Say what was left unsaid since the last event."""
        with self._lock:
            event = self._event() if self.done > self._said else None
        if event is not None:
            self.emit(event)

    def _event(self) -> Progressed:
        self._said = self.done
        return Progressed(image=self.image, step=self.step, done=self.done, total=self.total)
