"""A source that is opened when it is first asked for, once, by whichever thread comes first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from sconify_tasks.image.source import SourceImage


class OpenedSource:
    """Call it to get the source. `close` does nothing where none was opened."""

    def __init__(self, open_: Callable[[], SourceImage]) -> None:
        self._open = open_
        self._source: SourceImage | None = None
        self._lock = Lock()

    def __call__(self) -> SourceImage:
        """Return the source, opening it if need be."""
        with self._lock:
            if self._source is None:
                self._source = self._open()
            return self._source

    def close(self) -> None:
        """Close the source, if it was opened."""
        with self._lock:
            if self._source is not None:
                self._source.close()
                self._source = None
