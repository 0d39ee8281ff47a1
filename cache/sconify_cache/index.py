"""The action cache's file: names and texts in diskcache's SQLite database. What the texts mean is for `actions.py`.

Reading goes straight to the SQLite file: importing and opening diskcache costs 45 ms and writes its settings on every
open, where a build that finds everything is to write nothing. Writing goes through diskcache, with no eviction and a
Disk that holds only text (`json_disk.py`). The folder is its owner's alone.

A connection to a database in WAL mode makes -wal and -shm files, and deletes them when it is the last to close. So the
file is first read as an immutable one, where no -wal says that somebody writes. Somebody may begin to: then this reader
sees old rows, none, or nonsense. Whoever reads believes only what has its MAC; what is not found, or is found damaged, is
looked for again through a proper connection.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from msgspec import Struct

from sconify_cache.errors import StoreError
from sconify_cache.folder import database_error, make_private, store_error
from sconify_cache.wal import LOCKED, pauses

_BUSY_SECONDS: Final = 60
_SELECT: Final = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = 1 AND filename IS NULL"
_SELECT_NEXT: Final = "SELECT rowid, key, value, store_time FROM Cache WHERE raw = 1 AND rowid > ? ORDER BY rowid LIMIT ?"
_BATCH: Final = 500
_SPARSE_PAGES: Final = 1024
_SETTINGS: Final = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,
    "tag_index": 0,
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 1,
    "sqlite_mmap_size": 0,  # a page that can't be read is an error; through a mapping it would kill the process
}


class Row(Struct, frozen=True, kw_only=True):
    """A name, what is under it, and when it was written."""

    name: str
    text: object
    stored_ns: int


class Index:
    """Texts by name, in `folder`, which the first text that is written makes. Safe for threads and for processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._file = self._folder / "cache.db"
        self._still: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer: Any = None
        self._tried_still = False
        self._lock = threading.Lock()

    @property
    def file(self) -> Path:
        """The database."""
        return self._file

    def glance(self, name: str) -> object:
        """What a file that nobody writes to holds under a name; None says nothing. May be old or nonsense: see above."""
        with self._lock:
            if not self._tried_still:
                self._tried_still = True
                with suppress(sqlite3.Error, OSError):
                    self._still = _open_still(self._file)
            if self._still is None:
                return None
            try:
                row = self._still.execute(_SELECT, (name,)).fetchone()
            except (sqlite3.Error, OSError):
                self._forget_still()
                return None
            return row[0] if row else None

    def read(self, name: str) -> object:
        """What is under a name now; None where nothing is."""
        with self._lock, _sql_errors(self._file):
            reader = self._connected()
            row = None if reader is None else reader.execute(_SELECT, (name,)).fetchone()
        return row[0] if row else None

    def rows(self) -> Iterator[Row]:
        """Every name and what is under it, some at a time: neither the lock nor the memory is held for all."""
        last = 0
        while True:
            with self._lock, _sql_errors(self._file):
                reader = self._connected()
                rows = [] if reader is None else reader.execute(_SELECT_NEXT, (last, _BATCH)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            for _, name, text, stored in rows:
                if isinstance(name, str):
                    yield Row(name=name, text=text, stored_ns=int(stored * 10**9) if isinstance(stored, float) else 0)

    def write(self, texts: Mapping[str, str]) -> None:
        """Keep texts by name, all or none. Returns when they would survive kill -9."""

        def keep(writer: Any) -> None:
            with writer.transact():
                for name, text in texts.items():
                    writer.set(name, text)

        self._patiently(keep)

    def delete(self, names: Iterable[str]) -> None:
        """Forget names, all or none."""

        def forget(writer: Any) -> None:
            with writer.transact():
                for name in names:
                    writer.delete(name)

        self._patiently(forget)

    def _patiently(self, work: Callable[[Any], object]) -> None:
        """Write through diskcache, and wait for locks only: left to itself it retries for ever, a full disk too."""
        writer = self._opened()
        from diskcache import Timeout

        with _sql_errors(self._file):
            for pause in pauses(_BUSY_SECONDS):
                try:
                    work(writer)
                except Timeout as timeout:  # what it makes of any error with which a transaction can't begin
                    reason = timeout.__context__
                    if not isinstance(reason, sqlite3.Error):
                        raise
                    if reason.sqlite_errorcode & 0xFF not in LOCKED or pause is None:
                        raise reason from None
                    time.sleep(pause)
                else:
                    return

    def compact(self) -> None:
        """Give pages that hold nothing back to the disk, where they are many. An index that is busy stays as it is."""
        with suppress(sqlite3.Error), self._lock:
            reader = self._connected()
            if reader is None:
                return
            (free,), (pages,) = (reader.execute(f"PRAGMA {what}_count").fetchone() for what in ("freelist", "page"))
            if free > _SPARSE_PAGES and 2 * free > pages:
                reader.execute("PRAGMA query_only = 0")
                reader.execute("VACUUM")
                reader.execute("PRAGMA query_only = 1")

    def close(self) -> None:
        """Close the connections of this thread; the index can be used again."""
        with self._lock:
            self._forget_still()
            self._tried_still = False
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _forget_still(self) -> None:
        if self._still is not None:
            self._still.close()
            self._still = None

    def _connected(self) -> sqlite3.Connection | None:
        """Return the reading connection; None while nothing was ever recorded."""
        if self._reader is None:
            self._reader = _open_reader(self._file)
        return self._reader

    def _opened(self) -> Any:
        """diskcache, opened by the first text that is written. From then on, what is read is what is there."""
        with self._lock:
            self._forget_still()
            self._tried_still = True
            if self._writer is None:
                make_private(self._folder)
                self._writer = _open_writer(self._folder)
            return self._writer


def _open_still(file: Path) -> sqlite3.Connection | None:
    if not file.exists() or file.with_name(file.name + "-wal").exists():
        return None
    return _connect(file, "immutable=1")


def _open_reader(file: Path) -> sqlite3.Connection | None:
    if not file.exists():
        return None
    try:
        # Never mode=ro: such a connection leaves -wal and -shm files behind.
        return _connect(file, "mode=rw")
    except sqlite3.OperationalError as error:
        # Only where nobody can write here: an immutable file is read without locks.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        return _connect(file, "immutable=1")


def _connect(file: Path, mode: str) -> sqlite3.Connection | None:
    """A connection that only reads; None while another process is just making the file."""
    reader = sqlite3.connect(
        f"file:{quote(str(file))}?{mode}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        reader.execute("PRAGMA query_only = 1")
        if reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone():
            return reader
    except sqlite3.Error:
        reader.close()
        raise
    reader.close()
    return None


def _open_writer(folder: Path) -> Any:
    from diskcache import Cache

    from sconify_cache.json_disk import JSONTextDisk

    with _sql_errors(folder / "cache.db"):
        cache = Cache(str(folder), timeout=0, disk=JSONTextDisk, **_SETTINGS)
    if cache.directory != str(folder):
        message = f"cache: {folder} has a $ in its name, which diskcache takes for a variable"
        raise StoreError(message, hint="name another cache folder")
    return cache


@contextmanager
def _sql_errors(file: Path) -> Iterator[None]:
    """Raise SQLite's and diskcache's errors as StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise database_error(error, file) from error
    except OSError as error:
        raise store_error(error, file) from error
