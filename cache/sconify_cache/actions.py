"""The action cache: which action yielded what. An index on diskcache, of sealed records (`record.py`).

Reading goes straight to diskcache's SQLite file: importing and opening diskcache costs 45 ms and writes its settings
on every open, where a build that finds everything is to write nothing. Writing goes through diskcache, with no
eviction and a Disk that holds only text (`json_disk.py`). The folder is its owner's alone.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.folder import database_error, make_private, store_error
from sconify_cache.keys import JSON, canonical
from sconify_cache.record import VERSION, Record, Records, seal, seal_record, unseal, unseal_record

_BUSY_SECONDS: Final = 60
_SELECT: Final = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = 1 AND filename IS NULL"
_SELECT_NEXT: Final = "SELECT rowid, key, value FROM Cache WHERE raw = 1 AND rowid > ? ORDER BY rowid LIMIT ?"
_BATCH: Final = 500
_SETTINGS: Final = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,
    "tag_index": 0,
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 1,
}


class ActionCache(Records):
    """A Records in `folder`, and an index of each scope's last actions. Safe for threads and for processes.

    `mac_key` (32 bytes) is the project's: what it did not seal does not exist. `folder` is made by the first record.
    """

    def __init__(self, folder: Path, *, mac_key: bytes) -> None:
        self._folder = folder.absolute()
        self._file = self._folder / "cache.db"
        self._mac_key = mac_key
        self._reader: sqlite3.Connection | None = None
        self._writer: Any = None
        self._lock = threading.Lock()

    def lookup(self, key: Digest) -> Record | None:
        """Return the record of an action; None where there is none that this project's key sealed for it."""
        return unseal_record(self._read(key), self._mac_key, key)

    def record(self, record: Record) -> None:
        """Keep a record. Returns when it would survive kill -9."""
        self._write(record.key, seal_record(record, self._mac_key))

    def remember(self, scope: str, record: Record) -> None:
        """Note that `record` is what `scope` (an image) used last for its step. Writes only where that is news."""
        name = _pointer_name(scope, record.step)
        body: dict[str, JSON] = {"v": VERSION, "kind": "latest", "scope": scope, "step": record.step, "key": record.key}
        text = seal(body, self._mac_key)
        if self._read(name) != text:
            self._write(name, text)

    def latest(self, scope: str, step: str) -> Record | None:
        """Return what `scope` used last for a step, to tell what changed since; None where nothing is known."""
        body = unseal(self._read(_pointer_name(scope, step)), self._mac_key)
        wanted = (VERSION, "latest", scope, step)
        if body is None or (body.get("v"), body.get("kind"), body.get("scope"), body.get("step")) != wanted:
            return None
        return self.lookup(Digest(body["key"]))

    def prune(self, keep: Callable[[Record], bool]) -> int:
        """Delete the records that `keep` refuses and rows that are no records of ours. Returns how many."""
        gone = [name for name, text in self._rows() if not self._kept(name, text, keep)]
        if gone:
            writer = self._opened()
            with _sql_errors(self._file), writer.transact(retry=True):
                for name in gone:
                    writer.delete(name, retry=True)
        return len(gone)

    def records(self) -> Iterator[Record]:
        """Every record, authenticated."""
        for name, text in self._rows():
            with suppress(ValueError):
                found = unseal_record(text, self._mac_key, Digest(name))
                if found is not None:
                    yield found

    def close(self) -> None:
        """Close the connections of this thread; the cache can be used again."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _kept(self, name: str, text: object, keep: Callable[[Record], bool]) -> bool:
        if name.startswith("latest:"):
            return unseal(text, self._mac_key) is not None
        try:
            found = unseal_record(text, self._mac_key, Digest(name))
        except ValueError:
            return False
        return found is not None and keep(found)

    def _rows(self) -> Iterator[tuple[str, object]]:
        """Every row that could be ours, some at a time: neither the lock nor the memory is held for all."""
        last = 0
        while True:
            with self._lock, _sql_errors(self._file):
                reader = self._connected()
                rows = [] if reader is None else reader.execute(_SELECT_NEXT, (last, _BATCH)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from ((name, text) for _, name, text in rows if isinstance(name, str))

    def _read(self, name: str) -> object:
        with self._lock, _sql_errors(self._file):
            reader = self._connected()
            row = None if reader is None else reader.execute(_SELECT, (name,)).fetchone()
        return row[0] if row else None

    def _write(self, name: str, text: str) -> None:
        writer = self._opened()
        with _sql_errors(self._file):
            writer.set(name, text, retry=True)

    def _connected(self) -> sqlite3.Connection | None:
        """Return the reading connection; None while nothing was ever recorded."""
        if self._reader is None:
            self._reader = _open_reader(self._file)
        return self._reader

    def _opened(self) -> Any:
        """diskcache, opened by the first record that is written."""
        with self._lock:
            if self._writer is None:
                make_private(self._folder)
                self._writer = _open_writer(self._folder)
            return self._writer


def _pointer_name(scope: str, step: str) -> str:
    return "latest:" + canonical([scope, step]).decode()


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
        cache = Cache(str(folder), timeout=_BUSY_SECONDS, disk=JSONTextDisk, **_SETTINGS)
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
