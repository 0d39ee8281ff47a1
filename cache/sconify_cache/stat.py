"""A memory of content ids by stat, so that an unchanged tree is not read again.

An id is believed where path, size, mtime, ctime, inode and device are what they were. As in git's index, a file that
changed about when it was looked at is "racily clean": a later write in the same clock tick would leave the same stat.
So an entry counts only if its mtime and ctime are older, by a margin, than the time this cache was opened, which was
before the file's stat was taken. It serves to find what changed and nothing else: what gets encrypted is hashed again.

It is an accelerator: a file that is damaged or of another version is started anew. SQLite with a rollback journal,
because reading then writes nothing at all.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sconify_cache.digest import Digest
from sconify_cache.folder import database_error, disk_errors, make_private
from sconify_cache.ticks import COARSE_NS

_APPLICATION: Final = 0x5C0F57A7
_VERSION: Final = 1
_PACKED: Final = struct.Struct("<QqqQQ")
_MASK: Final = 2**64 - 1
_BUSY_SECONDS: Final = 10
_Row = tuple[bytes, bytes, bytes]


def _pack(found: os.stat_result) -> bytes:
    return _PACKED.pack(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & _MASK, found.st_dev & _MASK)


class StatCache:
    """Ids of the files below `roots`, loaded at once. Open one per run, before any file is looked at. One thread at a time.

    `generation` names what else an id depends on (the key of keyed ids): entries of another one are not seen.
    """

    def __init__(
        self, file: Path, *, generation: Digest, roots: Sequence[bytes] = (b"/",), now: Callable[[], int] = time.time_ns
    ) -> None:
        self.file = file
        self._generation = bytes.fromhex(generation)
        self._settled_before = now() - COARSE_NS
        self._roots = tuple(root.rstrip(b"/") for root in roots)
        self._known: dict[bytes, bytes] = {}
        self._fresh: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()
        if file.exists():
            try:
                self._load()
            except sqlite3.DatabaseError:
                self._known.clear()

    def lookup(self, path: bytes, found: os.stat_result) -> Digest | None:
        """Return the id that `path` had when it had this very stat, else None: then hash it and `remember`."""
        self._seen.add(path)
        entry = self._fresh.get(path) or self._known.get(path)
        if entry is None or entry[: _PACKED.size] != _pack(found):
            return None
        return Digest(entry[_PACKED.size :].hex())

    def remember(self, path: bytes, found: os.stat_result, content: Digest) -> None:
        """Keep an id. `found` is the file's stat from *before* it was read. Racily clean files are not kept."""
        self._seen.add(path)
        if max(found.st_mtime_ns, found.st_ctime_ns) < self._settled_before:
            self._fresh[path] = _pack(found) + bytes.fromhex(content)

    def save(self, *, complete: bool = False) -> None:
        """Write what is new, atomically; nothing where nothing is. `complete`: the roots were walked whole, forget the rest.

        A cache that another process is writing is left to it.
        """
        gone = [path for path in self._known if path not in self._seen] if complete else []
        _write(self.file, self.news(), gone)
        self.written()

    def _load(self) -> None:
        """Read the entries below the roots, in one go each."""
        with closing(_connect(self.file, "mode=ro")) as database:
            if _version(database) != (_APPLICATION, _VERSION):
                return
            for root in self._roots:
                # Everything that starts with "root/", as a range of the primary key; "0" follows "/".
                rows = database.execute(
                    "SELECT path, entry FROM entries WHERE path >= ? AND path < ? AND generation = ?",
                    (root + b"/", root + b"0", self._generation),
                )
                self._known.update(row for row in rows if len(row[1]) == _PACKED.size + 32)

    def news(self) -> list[_Row]:
        """What a file would gain by `save`."""
        return [(path, self._generation, entry) for path, entry in self._fresh.items() if self._known.get(path) != entry]

    def written(self) -> None:
        """Take the news as saved."""
        self._known |= self._fresh
        self._fresh.clear()


def save_all(caches: Iterable[StatCache]) -> None:
    """As `save`, of many, in one go for each file."""
    files: dict[Path, list[StatCache]] = {}
    for cache in caches:
        files.setdefault(cache.file, []).append(cache)
    for file, together in files.items():
        _write(file, [row for cache in together for row in cache.news()], [])
        for cache in together:
            cache.written()


def _write(file: Path, news: list[_Row], gone: list[bytes]) -> None:
    if not (gone or news):
        return
    make_private(file.parent)
    try:
        _store(file, news, gone)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise database_error(error, file) from error
    except sqlite3.DatabaseError:
        with disk_errors(file):
            file.unlink(missing_ok=True)
        with suppress(sqlite3.DatabaseError):
            _store(file, news, [])


def _store(file: Path, news: list[_Row], gone: list[bytes]) -> None:
    with closing(_connect(file, "mode=rwc")) as database:
        database.execute("BEGIN IMMEDIATE")
        if _version(database) != (_APPLICATION, _VERSION):
            database.execute("DROP TABLE IF EXISTS entries")
            database.execute(
                "CREATE TABLE entries (path BLOB PRIMARY KEY, generation BLOB NOT NULL, entry BLOB NOT NULL) WITHOUT ROWID"
            )
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_VERSION}")
        database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", news)
        database.executemany("DELETE FROM entries WHERE path = ?", ((path,) for path in gone))
        database.execute("COMMIT")


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def _version(database: sqlite3.Connection) -> tuple[int, int]:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return application, version


def forget_gone(file: Path, *, dry_run: bool = False) -> int:
    """Forget the entries of files that are gone; returns how many. A cache that is busy or damaged stays as it is."""
    if not file.exists():
        return 0
    with suppress(sqlite3.Error), closing(_connect(file, "mode=ro" if dry_run else "mode=rw")) as database:
        if _version(database) != (_APPLICATION, _VERSION):
            return 0
        gone = [(path,) for (path,) in database.execute("SELECT path FROM entries") if not os.path.lexists(path)]
        if gone and not dry_run:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("DELETE FROM entries WHERE path = ?", gone)
            database.execute("COMMIT")
        return len(gone)
    return 0
