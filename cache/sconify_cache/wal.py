"""Switching a SQLite database to its write-ahead log, where others do the same at the same time."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

_PAUSE_SECONDS: Final = 0.01


def switch_to_wal(database: sqlite3.Connection, *, seconds: float) -> None:
    """Try until it succeeds: for this one statement SQLite does not wait for others. Raises sqlite3.OperationalError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
