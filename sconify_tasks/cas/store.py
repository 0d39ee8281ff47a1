"""Where sessions are kept: SQLite in WAL mode, every version under its hash, every text sealed.

The sealing key lies outside of the database, so a copy of the database alone tells names, hashes and creators and nothing
else, and a row that was changed, swapped or invented is refused when it is read. An older copy of the whole database put
in its place is not noticed. Threads and processes share nothing but the file: one connection per operation, or, where a
build has many, one after another on the same one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from sconify_cache.wal import begin, switch_to_wal
from sconify_tasks.errors import StoreError
from sconify_tasks.named_file import is_anothers

_APPLICATION_ID = 0x53434153  # "SCAS"
_SCHEMA_VERSION = 1
_BUSY_SECONDS = 10.0
_NONCE = 12
# `number` counts the versions of one name from 1 without gaps; the largest is the one that is served.
_SCHEMA = """
CREATE TABLE versions (
    name TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    hash TEXT NOT NULL,
    predecessor TEXT NOT NULL,
    creator TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (name, number)
) STRICT, WITHOUT ROWID
"""
_COLUMNS = "name, number, hash, predecessor, creator, sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """One version. `creator` is who made the first one: the SHA-256 of his key's SPKI, 64 hex digits."""

    name: str
    number: int
    hash: str
    predecessor: str
    creator: str
    text: str = field(repr=False)


class _Opened(Struct, frozen=True, kw_only=True):
    """A connection, and which file was there when it was made: device and inode."""

    connection: sqlite3.Connection
    file: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStore:
    """The sessions in one database file, made when it is first used. Every method raises StoreError where disk or file fail.

    With `keep`, connections that nobody uses any more are kept for the next operations, until `close`: it saves SQLite's
    opening, and its merging of the write-ahead log, of each. A server doesn't: its database can be put back from a backup.
    """

    path: Path
    key: bytes = field(repr=False)
    keep: bool = False
    _idle: deque[_Opened] = field(default_factory=deque, init=False, repr=False, compare=False)

    def close(self) -> None:
        """Close the connections that are kept: the log is merged into the database. The store can be used again."""
        while kept := self._take():
            kept.connection.close()

    def newest(self, name: str) -> StoredSession | None:
        """Return the version that is served; None where the name is unknown."""
        with self._connected() as connection:
            return Sessions(connection=connection, store=self).newest(name)

    def version(self, name: str, digest: str) -> StoredSession | None:
        """Return an old or new version by its hash."""
        with self._connected() as connection:
            return Sessions(connection=connection, store=self).version(name, digest)

    @contextmanager
    def writing(self) -> Iterator[Sessions]:
        """Hold the only write lock: what is read inside still holds when it is written. Kept if nothing raises, else undone."""
        with self._connected() as connection:
            begin(connection, seconds=_BUSY_SECONDS)
            try:
                yield Sessions(connection=connection, store=self)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def seal(self, session: StoredSession) -> bytes:
        """Encrypt the text, bound to everything else in its row."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self.key).encrypt(nonce, session.text.encode(), _row_identity(session))

    def open_row(self, row: tuple[str, int, str, str, str, bytes]) -> StoredSession:
        """Read one row; StoreError where it was not sealed with this key, or not in this place."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, number, digest, predecessor, creator, sealed = row
        empty = StoredSession(name=name, number=number, hash=digest, predecessor=predecessor, creator=creator, text="")
        try:
            text = AESGCM(self.key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _row_identity(empty)).decode()
        except (InvalidTag, ValueError) as error:
            raise StoreError(
                f"session {name} in {self.path} does not open: the row was changed, or sealed with another key",
                hint="restore database and store.key together from a backup",
            ) from error
        return StoredSession(name=name, number=number, hash=digest, predecessor=predecessor, creator=creator, text=text)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            opened = self._kept() or self._connect()
            try:
                yield opened.connection
            except BaseException:
                opened.connection.close()
                raise
            if self.keep:
                self._idle.append(opened)
            else:
                opened.connection.close()
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path}: {error}", hint="check the disk, and that no other program holds the file"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path} is damaged: {error}", hint="restore it from a backup, or move it away") from error
        except OSError as error:
            raise StoreError(f"{self.path} can't be opened: {error.strerror}") from error

    def _kept(self) -> _Opened | None:
        """A connection that is kept, if it is one to the file that is there now."""
        kept = self._take()
        if kept is not None and self._file() != kept.file:
            kept.connection.close()
            return None
        return kept

    def _take(self) -> _Opened | None:
        """A connection that nobody uses, now the caller's. A deque is safe for threads."""
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        if is_anothers(found):
            raise StoreError(f"{self.path} belongs to user {found.st_uid}", hint="remove it, or name another state folder")
        return found.st_dev, found.st_ino

    def _connect(self) -> _Opened:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file readable by others, and its -wal and -shm files take the mode of the first. Only a file
        # that nobody has yet may be opened beside SQLite: closing it again drops every lock that this process has on it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        file = self._file()  # looked at before it is opened: one put in its place since is then not taken for it
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return _Opened(connection=connection, file=file or (0, 0))

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # A row or schema planted in the file must not run functions.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        if self._identity(connection) == (0, 0):
            switch_to_wal(connection, seconds=_BUSY_SECONDS)
            connection.execute("BEGIN IMMEDIATE")
            if self._identity(connection) == (0, 0):  # nobody was faster
                if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    connection.execute("ROLLBACK")
                    raise StoreError(f"{self.path} is another program's database", hint="name another state folder")
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            connection.execute("COMMIT")
        application, version = self._identity(connection)
        if application != _APPLICATION_ID:
            raise StoreError(f"{self.path} is another program's database", hint="name another state folder")
        if version != _SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema {version}, this release knows {_SCHEMA_VERSION}", hint="upgrade sconify-cas"
            )

    def _identity(self, connection: sqlite3.Connection) -> tuple[int, int]:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        return application, connection.execute("PRAGMA user_version").fetchone()[0]


class Sessions(Struct, frozen=True, kw_only=True):
    """The sessions as one connection sees them."""

    connection: sqlite3.Connection
    store: SessionStore

    def newest(self, name: str) -> StoredSession | None:
        """Return the version that is served."""
        return self._one("WHERE name = ? ORDER BY number DESC LIMIT 1", (name,))

    def version(self, name: str, digest: str) -> StoredSession | None:
        """Return the latest version with this hash."""
        return self._one("WHERE name = ? AND hash = ? ORDER BY number DESC LIMIT 1", (name, digest))

    def append(self, *, name: str, digest: str, creator: str, text: str) -> StoredSession:
        """Add a version on top of the newest. Old ones stay."""
        current = self.newest(name)
        session = StoredSession(
            name=name,
            number=current.number + 1 if current else 1,
            hash=digest,
            predecessor=current.hash if current else "",
            creator=current.creator if current else creator,
            text=text,
        )
        row = (name, session.number, digest, session.predecessor, session.creator, self.store.seal(session))
        self.connection.execute(f"INSERT INTO versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - a constant
        return session

    def _one(self, clause: str, values: tuple[str, ...]) -> StoredSession | None:
        row = self.connection.execute(f"SELECT {_COLUMNS} FROM versions {clause}", values).fetchone()  # noqa: S608 - constants
        return self.store.open_row(row) if row else None


def _row_identity(session: StoredSession) -> bytes:
    what = ["sconify-cas/1", session.name, session.number, session.hash, session.predecessor, session.creator]
    return json.dumps(what, separators=(",", ":")).encode()
