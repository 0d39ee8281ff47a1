"""Which version of a session the embedded CAS serves: by SQLite alone, because loading the CAS takes longer than a whole plan.

It decides whether an upload can be skipped. It is not authenticated, and needs not be: what a service gets is read, and
verified, by the CAS itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote


def embedded_hash(state: Path, name: str) -> str | None:
    """The hash of the newest version; None where there is none, or the file can't be read."""
    file = state / "cas" / "sessions.sqlite"
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=10)) as connection:
            connection.execute("PRAGMA query_only = 1")
            row = connection.execute(
                "SELECT hash FROM versions WHERE name = ? ORDER BY number DESC LIMIT 1", (name,)
            ).fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None
