"""Sources that are opened when they are first asked for, once, by whichever thread comes first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from sconify_tasks.image.source import SourceImage


class OpenedSource:
    """Call it to get the source. `close` does nothing where none was opened; a later call opens it anew."""

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

    def abandon(self) -> SourceImage | None:
        """In a forked child: give the parent's source away, and open another one when asked for it."""
        source, self._source = self._source, None
        return source


class OpenedSources:
    """The sources of a run: images that are made from one native image read one source."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, ...], OpenedSource] = {}
        self._lock = Lock()

    def get(self, key: tuple[str, ...], open_: Callable[[], SourceImage]) -> OpenedSource:
        """Return the source of this key: everything that decides what `open_` opens. Only the first one's is used."""
        with self._lock:
            return self._sources.setdefault(key, OpenedSource(open_))

    def close(self) -> None:
        """Close what was opened."""
        with self._lock:
            for source in self._sources.values():
                source.close()

    def abandon(self) -> list[SourceImage | None]:
        """As `OpenedSource.abandon`, of all."""
        return [source.abandon() for source in self._sources.values()]
