"""SQLite databases that several processes write: switching one to its write-ahead log, and waiting for its lock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Final

_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_05, 0.01
LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def switch_to_wal(database: sqlite3.Connection, *, seconds: float) -> None:
    """Try until it succeeds: for this one statement SQLite does not wait for others. Raises sqlite3.OperationalError."""
    for pause in pauses(seconds):
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or pause is None:
                raise
            time.sleep(pause)
        else:
            return


def begin(database: sqlite3.Connection, *, seconds: float) -> None:
    """BEGIN IMMEDIATE, waiting for another writer in small steps; sqlite3.OperationalError where the time runs out.

    Transactions here take parts of a millisecond. SQLite itself waits 1, 2, 5, 10 ms and so on: two processes that write
    often would spend more time waiting than working.
    """
    database.execute("PRAGMA busy_timeout = 0")
    try:
        for pause in pauses(seconds):
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in LOCKED or pause is None:
                    raise
                time.sleep(pause)
            else:
                return
    finally:
        database.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


def pauses(seconds: float) -> Iterator[float | None]:
    """How long to wait before the next try, a little longer each time; None once the time has run out."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        yield pause if time.monotonic() < deadline else None
        pause = min(pause * 1.5, _LONGEST_PAUSE)
