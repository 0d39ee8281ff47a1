"""Steps that run at once are bounded by memory as well as by processors.

A step that says what it will need is admitted while the sum of those that run stays within the budget. One that needs more
than all of it waits until it is alone, and then runs: refusing it would help nobody. Who waits is served in turn, so that a
large step is not passed by small ones for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Condition
from typing import Protocol

_UNKNOWN = 1 << 30


class Admission(Protocol):
    """Hands out memory to steps: a `MemoryBudget`, or a worker's door to that of its run."""

    def admitted(self, size: int) -> AbstractContextManager[None]:
        """Run the body when there is room for `size` bytes. Not for a body that asks again."""


class MemoryBudget:
    """So many bytes for the steps that run at once. Safe for threads; `most` is the largest sum there ever was."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.most = self.running = 0
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """As `Admission`."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(size))
                self.used, self.running = self.used + size, self.running + 1
                self.most = max(self.most, self.used)
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.used, self.running = self.used - size, self.running - 1
                self._changed.notify_all()

    @contextmanager
    def set_aside(self, *, shares: int, size: int) -> Iterator[int]:
        """For the length of the body, take shares out of the budget, for those who then need not ask.

        Yields the size of one, `size`; or 0 where that would be more than half of what there is.
        """
        taken = shares * size if 2 * shares * size <= self.limit else 0
        with self._changed:
            self.limit -= taken
        try:
            yield size if taken else 0
        finally:
            with self._changed:
                self.limit += taken
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self.running or self.used + size <= self.limit


def default_limit() -> int:
    """Half of what is available when the run first asks: the rest is for its own Python, and for others."""
    from sconify_tasks.available_memory import available_memory

    found = available_memory()
    return _UNKNOWN if found is None else found // 2
