"""Which version of a session the embedded CAS serves: by SQLite alone, because loading the CAS takes longer than a whole plan.

It decides whether an upload can be skipped. It is not authenticated, and needs not be: what a service gets is read, and
verified, by the CAS itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from urllib.parse import quote

_NEWEST = "SELECT hash FROM versions WHERE name = ? ORDER BY number DESC LIMIT 1"


class EmbeddedHashes:
    """The newest versions in the CAS of a state folder, as they are at each question; one connection answers them all.

    Safe for threads. `close` it before a fork; it is opened again when it is asked again.
    """

    def __init__(self, state: Path) -> None:
        self._file = state / "cas" / "sessions.sqlite"
        self._connection: sqlite3.Connection | None = None
        self._lock = Lock()

    def get(self, name: str) -> str | None:
        """The hash of the newest version; None where there is none, or the file can't be read."""
        with self._lock:
            try:
                connection = self._connected()
                row = connection.execute(_NEWEST, (name,)).fetchone() if connection else None
            except sqlite3.Error:
                self._close()
                return None
            return None if row is None else str(row[0])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._close()

    def _connected(self) -> sqlite3.Connection | None:
        if self._connection is None and self._file.exists():
            name = f"file:{quote(str(self._file))}?mode=rw"
            self._connection = sqlite3.connect(name, uri=True, timeout=10, check_same_thread=False)
            self._connection.execute("PRAGMA query_only = 1")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def embedded_hashes(state: Path, names: Iterable[str]) -> dict[str, str]:
    """The hash of the newest version of each session that is there."""
    hashes = EmbeddedHashes(state)
    try:
        return {name: found for name in names if (found := hashes.get(name)) is not None}
    finally:
        hashes.close()
