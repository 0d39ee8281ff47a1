"""Which version of a session the embedded CAS serves: by SQLite alone, because loading the CAS takes longer than a whole plan.

It decides whether an upload can be skipped. It is not authenticated, and needs not be: what a service gets is read, and
verified, by the CAS itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

_NEWEST = "SELECT hash FROM versions WHERE name = ? ORDER BY number DESC LIMIT 1"


def embedded_hash(state: Path, name: str) -> str | None:
    """The hash of the newest version; None where there is none, or the file can't be read."""
    return embedded_hashes(state, (name,)).get(name)


def embedded_hashes(state: Path, names: Iterable[str]) -> dict[str, str]:
    """The hash of the newest version of each session that is there."""
    file = state / "cas" / "sessions.sqlite"
    if not file.exists():
        return {}
    found = {}
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=10)) as connection:
            connection.execute("PRAGMA query_only = 1")
            for name in names:
                if row := connection.execute(_NEWEST, (name,)).fetchone():
                    found[name] = str(row[0])
    except sqlite3.Error:
        return {}
    return found
