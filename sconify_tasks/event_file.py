"""A file that events go to while a run lasts. It is opened before any work is done, and its owner's alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sconify_tasks.errors import UsageError


class EventFile:
    """Text that is on its way at once. A write that fails stops the file, with one warning, and never the build."""

    def __init__(self, path: str, *, option: str, warn: Callable[[str], None]) -> None:
        """Make or empty the file; UsageError where that can't be done, or it holds something else, naming the option."""
        if path == "-":
            raise UsageError(f"--{option}=- is not possible: stdout carries results only", hint="name a file, or /dev/fd/3")
        try:
            if _holds_something_else(Path(path)):
                raise UsageError(
                    f"--{option}={path} is there, and holds no events", hint="name another file, or remove that one"
                )
            self._file = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"--{option}={path} can't be written: {error.strerror}", hint="name another file") from None
        self._what, self._warn = f"--{option}={path}", warn
        self._end = 0
        self._open = self._works = True
        self.seekable = _seekable(self._file)

    def write(self, text: str, *, then: str = "") -> None:
        """Write. `then` follows, and is written over by the next text; for seekable files.

        Where a Ctrl-C falls into it, the next text takes this one's place: there is never half of one between others.
        """
        if not self._works:
            return
        data = text.encode()
        try:
            self._put(data + then.encode())
        except OSError as error:
            self._works = False
            self._warn(f"{self._what}: {error.strerror}; the rest of the run is not written there")
        self._end += len(data)

    def close(self, *, last: str = "") -> None:
        """Write what ends the file, and close it."""
        if not self._open:
            return
        self.write(last)
        self._open = False
        try:
            if self.seekable and self._works:
                os.ftruncate(self._file, self._end)
            os.close(self._file)
        except OSError as error:
            if self._works:
                self._warn(f"{self._what}: {error.strerror}")
        self._works = False

    def _put(self, data: bytes) -> None:
        place = self._end
        while data:
            count = os.pwrite(self._file, data, place) if self.seekable else os.write(self._file, data)
            data, place = data[count:], place + count


def _holds_something_else(path: Path) -> bool:
    """Whether a file would be lost: one that begins neither as a line of events does, nor as a trace."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) not in (b"", b"{", b"[")


def _seekable(descriptor: int) -> bool:
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return os.path.isfile(f"/proc/self/fd/{descriptor}")  # noqa: PTH113 - a terminal can be asked to seek and does not
