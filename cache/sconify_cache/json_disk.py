"""diskcache's Disk, reduced to text. Import this only lazily: it loads diskcache.

diskcache's own Disk and JSONDisk unpickle what a row tells them to (CVE-2025-69872), keep large values in files that a
row names, and delete such files. Here a key and a value are text in the row and nothing else, in both directions.
"""

from __future__ import annotations

from typing import Any, NoReturn

from diskcache import Disk
from diskcache.core import MODE_RAW, UNKNOWN


class RefusedRowError(ValueError):
    """A row, or a value to become one, that is not plain text."""

    def __init__(self) -> None:
        super().__init__("only text is kept in the action cache")


class JSONTextDisk(Disk):  # type: ignore[misc]
    """Keys and values are `str`, in the row itself. Everything else raises RefusedRowError, pickle above all."""

    def put(self, key: object) -> tuple[str, bool]:
        """Key to column."""
        return self._text(key), True

    def get(self, key: object, raw: object) -> str:
        """Column to key."""
        if not raw:
            raise RefusedRowError
        return self._text(key)

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, None, str]:  # noqa: ARG002
        """Value to columns: always in the row, whatever its length."""
        if read:
            raise RefusedRowError
        return 0, MODE_RAW, None, self._text(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> str:
        """Columns to value."""
        if mode != MODE_RAW or filename is not None or read:
            raise RefusedRowError
        return self._text(value)

    def filename(self, key: Any = UNKNOWN, value: Any = UNKNOWN) -> NoReturn:  # noqa: ARG002
        """No value is ever kept in a file."""
        raise RefusedRowError

    def remove(self, file_path: object) -> None:
        """Delete nothing: we made no file, so a name in a row is somebody else's wish."""

    @staticmethod
    def _text(value: object) -> str:
        if not isinstance(value, str):
            raise RefusedRowError
        return str.__str__(value)
