"""doit's state in SQLite, committed after every task: a killed run keeps every task that it finished.

doit's own backends write at the end of the run, so SIGTERM or SIGKILL loses it all. doit saves a task as a series of
`set` calls of which "deps:" is the last (`doit.dependency.Dependency.save_success`): that one commits here. WAL with
synchronous=NORMAL survives kill -9 with everything, and a power cut with a sound file that may lack the last tasks.

doit's runners touch a backend from the main thread only, also with `-P thread`; a lock lets actions do it too.
Nothing rests on this file but speed: what is stale is decided by action keys. It is still never reset in silence,
because it also says which of the *user's* tasks are done.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from doit.dependency import DatabaseException
from doit.exceptions import InvalidDodoFile

from sconify_cache.wal import begin, switch_to_wal
from sconify_tasks.errors import StoreError

_APPLICATION: Final = 0x5C0FD017
_VERSION: Final = 1
_BUSY_SECONDS: Final = 60
_LAST_OF_A_TASK: Final = "deps:"
_DELETE: Final = "if it can't be repaired, delete it: every task then runs once more"
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "free some space on that disk",
    sqlite3.SQLITE_READONLY: "check who may write there, or name another file with --db-file",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and may be written, or name another file with --db-file",
    sqlite3.SQLITE_BUSY: "another run holds it: wait for that one",
}


class StateError(StoreError, InvalidDodoFile, DatabaseException):  # type: ignore[misc]
    """doit's state can't be read or written. Also an InvalidDodoFile: doit then prints the message and no traceback."""


class SconifyBackend:
    """A doit backend (`backend = "sconify"`, entry point group doit.BACKEND). `name` is the file's path."""

    desc = "SQLite, committed after every task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:  # noqa: ARG002 - doit's interface
        self.name = name
        self._codec = codec
        self._lock = threading.RLock()
        self._tasks: dict[str, dict[str, Any]] = {}
        self._dirty: set[str] = set()
        self._closed = False
        with self._errors():
            self._database = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._prepare()

    def get(self, task_id: str, dependency: str) -> Any:
        """Return a saved value, or None."""
        with self._lock:
            return self._load(task_id).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Save a value; the last of a task's values commits the task."""
        with self._lock:
            self._load(task_id)[dependency] = value
            self._dirty.add(task_id)
            if dependency == _LAST_OF_A_TASK:
                self._flush()

    def in_(self, task_id: str) -> bool:
        """Whether anything is saved of a task."""
        with self._lock:
            return bool(self._load(task_id))

    def remove(self, task_id: str) -> None:
        """Forget a task, at once: a task that failed must not count as done after a kill."""
        with self._lock:
            self._tasks[task_id] = {}
            self._dirty.discard(task_id)
            with self._errors():
                self._database.execute("DELETE FROM tasks WHERE id = ?", (task_id,))

    def remove_all(self) -> None:
        """Forget every task."""
        with self._lock:
            self._tasks.clear()
            self._dirty.clear()
            with self._errors():
                self._database.execute("DELETE FROM tasks")

    def dump(self) -> None:
        """Commit what is left and close; called by doit at the end of a run."""
        with self._lock:
            if not self._closed:
                self._flush()
                self._closed = True
                with self._errors():
                    self._database.close()

    def _load(self, task_id: str) -> dict[str, Any]:
        found = self._tasks.get(task_id)
        if found is None:
            with self._errors():
                row = self._database.execute("SELECT data FROM tasks WHERE id = ?", (task_id,)).fetchone()
                found = self._tasks[task_id] = self._decoded(row[0]) if row else {}
        return found

    def _decoded(self, text: str) -> dict[str, Any]:
        try:
            data = self._codec.decode(text)
        except (TypeError, ValueError):
            data = None
        if not isinstance(data, dict):
            raise self._damaged("a task's data is not JSON")
        return data

    def _flush(self) -> None:
        if self._dirty:
            rows = [(task_id, self._codec.encode(self._tasks[task_id])) for task_id in sorted(self._dirty)]
            with self._errors(), self._database:  # commits, or rolls back
                begin(self._database, seconds=_BUSY_SECONDS)
                self._database.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?)", rows)
            self._dirty.clear()

    def _prepare(self) -> None:
        """Make the table in an empty file; refuse a file of another program or version."""
        run = self._database.execute
        # Before anything is written: a foreign database must stay as it is, its journal mode too.
        with self._database:
            run("BEGIN")  # one view of the file for several questions
            ours = self._is_ours()
        if not ours:
            switch_to_wal(self._database, seconds=_BUSY_SECONDS)
            with self._database:
                run("BEGIN IMMEDIATE")
                if not self._is_ours():  # else another process made it meanwhile
                    run("CREATE TABLE tasks (id TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")
                    run(f"PRAGMA application_id = {_APPLICATION}")
                    run(f"PRAGMA user_version = {_VERSION}")
        run("PRAGMA synchronous = NORMAL")

    def _is_ours(self) -> bool:
        """Whether the table is there. Raises StateError for a file that holds something else."""
        run = self._database.execute
        kind = (*run("PRAGMA application_id").fetchone(), *run("PRAGMA user_version").fetchone())
        if kind == (_APPLICATION, _VERSION):
            return True
        if kind != (0, 0) or run("SELECT 1 FROM sqlite_master").fetchone():
            raise self._damaged("it was written by another program or another version")
        return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._damaged(str(error), _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _DELETE)) from error

    def _damaged(self, reason: str, advice: str = _DELETE) -> StateError:
        return StateError(f"doit's state in {Path(self.name).absolute()}: {reason}", hint=advice)
