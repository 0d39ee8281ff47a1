"""What the archives of an engine brought is held as long as the source is open: a file comes from the engine once.

An archive costs the engine a process and some 60 ms, whatever its size. Contents lie in one temporary file without a name,
which vanishes with the process, whatever ends it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import BinaryIO

from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import below, split
from sconify_tasks.image.streams import CHUNK, part

LIMIT = 512 << 20


@dataclass(slots=True)
class Held:
    """Contents by path, and the entries of archives that were read to their end. Safe for many threads."""

    limit: int = LIMIT
    _file: BinaryIO | None = None
    _used: int = 0
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    _archives: dict[bytes, tuple[Entry, ...]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, entry: Entry, content: BinaryIO) -> BinaryIO | None:
        """Hold a file's content and open it; None, and nothing read, where there is no room for it."""
        with self._lock:
            if self._used + entry.size > self.limit:
                return None
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sconify-")  # noqa: SIM115
            descriptor, start = self._file.fileno(), self._used
            self._used += entry.size
        at = start
        while data := content.read(CHUNK):
            at += os.pwrite(descriptor, data, at)
        self._places[entry.path] = (start, at - start)
        return part(descriptor, start, at - start)

    def open(self, path: bytes) -> BinaryIO | None:
        """The content of a file that is held."""
        place = self._places.get(path)
        return part(self._file.fileno(), *place) if place is not None and self._file is not None else None

    def has(self, path: bytes) -> bool:
        """Whether the content of a file is held."""
        return path in self._places

    def complete(self, root: bytes, entries: tuple[Entry, ...]) -> None:
        """The archive of `root` was read to its end, every content in it is held, and these are its entries in order."""
        self._archives[root] = entries

    def archive(self, path: bytes) -> bytes | None:
        """Which complete archive would have `path`, if the image has it."""
        while path not in self._archives:
            if path == b"/":
                return None
            path = split(path)[0]
        return path

    def entries(self, root: bytes) -> tuple[Entry, ...]:
        """The entries of a complete archive."""
        return self._archives[root]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._places.clear()
            self._archives.clear()
            if self._file is not None:
                self._file.close()
            self._file, self._used = None, 0


@dataclass(slots=True)
class Passed:
    """What passed of an archive. A directory's members come one after the other: when another follows, it was whole."""

    entries: list[Entry] = field(default_factory=list)
    _open: list[tuple[bytes, int]] = field(default_factory=list)
    _done: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    _lacking: list[int] = field(default_factory=list)

    def add(self, entry: Entry, *, whole: bool) -> None:
        """One more entry; `whole` unless its content is not held."""
        self._leave(entry.path)
        if entry.kind is Kind.DIR:
            self._open.append((entry.path, len(self.entries)))
        elif not self._open:
            self._done[entry.path] = (0, 1)  # the archive of one file
        if not whole:
            self._lacking.append(len(self.entries))
        self.entries.append(entry)

    def end(self) -> None:
        """The archive was read to its end."""
        self._leave(None)

    def complete(self) -> Iterator[tuple[bytes, tuple[Entry, ...]]]:
        """The outermost directories that are whole, with all that lies in them."""
        whole = {path: part for path, part in self._done.items() if not any(part[0] <= at < part[1] for at in self._lacking)}
        for path, (start, stop) in whole.items():
            if path == b"/" or split(path)[0] not in whole:
                yield path, tuple(self.entries[start:stop])

    def _leave(self, path: bytes | None) -> None:
        while self._open and (path is None or not below(path, self._open[-1][0])):
            directory, start = self._open.pop()
            self._done[directory] = (start, len(self.entries))
