"""Sources that are opened when they are first asked for, once, by whichever thread comes first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from sconify_tasks.errors import SconifyError
from sconify_tasks.image.source import SeenSource, SourceImage


class OpenedSource:
    """Call it to get the source. `close` does nothing where none was opened; a later call opens it anew.

    Between two `close` it is one image: what a build is planned for is filed under that image's identity, and a name may mean
    another image by the time when it is opened, or opened again.
    """

    def __init__(self, open_: Callable[[], SourceImage]) -> None:
        self._open = open_
        self._source: SourceImage | None = None
        self._expected = ""
        self._findings: object | None = None
        self._lock = Lock()

    def __call__(self) -> SourceImage:
        """Return the source, opening it if need be; SconifyError where it is not the image that it was."""
        with self._lock:
            if self._source is None:
                source = self._open()
                try:
                    self._check(source)
                except BaseException:
                    source.close()
                    raise
                self._source = source
            return self._source

    def expect(self, identity: str) -> None:
        """Say what the source must be, when it is opened."""
        with self._lock:
            self._expected = identity

    def close(self) -> None:
        """Close the source, if it was opened. The next one may be another image."""
        with self._lock:
            if self._source is not None:
                self._source.close()
            self._source = self._findings = None
            self._expected = ""

    def abandon(self) -> SourceImage | None:
        """In a forked child: give the parent's source away, and open another one, of the same image, when asked for it."""
        source, self._source = self._source, None
        if source is not None:
            self._findings = source.findings if isinstance(source, SeenSource) else None
            self._expected = "" if self._findings is not None else source.identity
        return source

    def _check(self, source: SourceImage) -> None:
        if self._findings is not None:
            assert isinstance(source, SeenSource), "what is opened once more is of the same kind"
            source.resume(self._findings)
        elif self._expected and source.identity != self._expected:
            message = f"{source.name} is another image by now than when the build began"
            raise SconifyError(message, hint="build again when nobody replaces it")


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
