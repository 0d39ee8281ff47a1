"""A cache folder as a whole: `store/` and `actions/`, and the accelerators beside them, which may go at any time.

`stat/stat.db` remembers content ids by stat (`stat.py`); `doit.db` is doit's own state, on which nothing rests; a file of
`settled/` notes, for a day, what a run found to be done.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from sconify_cache.index import Index
from sconify_cache.local import LocalStore
from sconify_cache.stat import forget_gone

_NOTES_LIVE_NS: Final = 2 * 24 * 3600 * 10**9


class House(Struct, frozen=True, kw_only=True):
    """What lies in a cache folder."""

    folder: Path
    store: LocalStore
    index: Index

    @property
    def store_folder(self) -> Path:
        """Where blobs, scratch and leases are."""
        return self.folder / "store"

    def accelerators(self) -> dict[str, int]:
        """Bytes of the files that only save time."""
        found = {"settled": sum(path.stat().st_size for path in self._notes())}
        for path in (self.folder / "stat" / "stat.db", self.folder / "doit.db"):
            with suppress(FileNotFoundError):
                found[path.name] = path.stat().st_size
        return found

    def forget(self, *, now_ns: int, max_age_ns: int | None, dry_run: bool) -> int:
        """Forget stats of files that are gone, old notes, and doit's state where it is old.

        Returns how many files' stats were forgotten.
        """
        state = self.folder / "doit.db"
        with suppress(FileNotFoundError, sqlite3.Error):
            if max_age_ns is not None and not dry_run and state.stat().st_mtime_ns < now_ns - max_age_ns:
                # Emptied, not deleted: a run that has it open goes on with it.
                with closing(sqlite3.connect(state, timeout=0, isolation_level=None)) as database:
                    database.execute("DELETE FROM tasks")
                    database.execute("VACUUM")
        for note in self._notes():
            with suppress(FileNotFoundError):
                if not dry_run and note.stat().st_mtime_ns < now_ns - _NOTES_LIVE_NS:
                    note.unlink()
        return forget_gone(self.folder / "stat" / "stat.db", dry_run=dry_run)

    def _notes(self) -> list[Path]:
        return [path for path in (self.folder / "settled").glob("*") if path.is_file()]

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()


def open_house(folder: Path) -> House:
    """Open a cache folder. Nothing is made where there is none."""
    return House(folder=folder, store=LocalStore(folder / "store"), index=Index(folder / "actions"))
