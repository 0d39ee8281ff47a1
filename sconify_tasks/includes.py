"""`include:` of a project file: which files a pattern fits, seen from the folder of the file that says so.

A pattern is relative and goes down only. `*`, `?` and `[…]` stand for parts of one name, `**` for any number of folders;
like a shell's they pass over names that begin with a dot, and `**` does not go through links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from sconify_tasks.errors import UsageError

MOST_ENTRIES = 200_000
_MAGIC = re.compile(r"[*?\[]")
_DEEPEST = 64


class Glob(Struct, frozen=True, kw_only=True):
    """What one pattern fitted: what has to be looked at again to know whether the project is still the same."""

    folder: Path
    pattern: str
    found: tuple[Path, ...]

    def holds(self) -> bool:
        """Whether it still fits the same files."""
        try:
            return find(self.folder, self.pattern) == self.found
        except (UsageError, ValueError):
            return False


def find(folder: Path, pattern: str) -> tuple[Path, ...]:
    """Return the files that fit, each once, sorted name by name. Folders never fit.

    ValueError says what is wrong with a pattern; UsageError that a folder can't be read, or that there is no end to it.
    """
    parts = [part for part in pattern.split("/") if part != "."]
    if not parts or pattern.startswith("/") or ".." in parts or "" in parts or "\0" in pattern or len(parts) > _DEEPEST:
        raise ValueError("a path or pattern below this folder, relative and without ..")
    # `**/**` is `**`, and would only be walked twice.
    shorter = tuple(part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ["**"])
    if shorter[-1:] == ("**",):
        raise ValueError("a pattern that ends with the name of a file, as services/**/sconify.yaml")
    found = set(_Walk(str(folder)).files(str(folder), shorter))
    return tuple(Path(name) for name in sorted(found, key=lambda name: os.fsencode(name).split(b"/")))


class _Walk:
    """One walk, which counts what it looks at."""

    def __init__(self, folder: str) -> None:
        self._seen = 0
        self._level = folder.count("/")

    def files(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self.files(folder, rest)
            for entry in self._entries(folder):
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield from self.files(self._not_too_deep(entry.path), parts)
        elif _MAGIC.search(part):
            hidden = part.startswith(".")
            for entry in self._entries(folder):
                if entry.name.startswith(".") <= hidden and fnmatchcase(entry.name, part):
                    yield from self._next(entry.path, rest)
        else:
            yield from self._next(f"{folder}/{part}", rest)

    def _next(self, path: str, rest: tuple[str, ...]) -> Iterator[str]:
        if not rest:
            if os.path.isfile(path):  # noqa: PTH113 - ten thousand times: no Path is made
                yield path
        elif os.path.isdir(path):  # noqa: PTH112
            yield from self.files(path, rest)

    def _not_too_deep(self, path: str) -> str:
        if path.count("/") - self._level > _DEEPEST:
            raise UsageError(f"{path[:200]} lies more than {_DEEPEST} folders deep", hint="write a narrower pattern")
        return path

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            raise UsageError(f"{folder} can't be looked through: {error.strerror}") from None
        self._seen += len(found)
        if self._seen > MOST_ENTRIES:
            raise UsageError(f"more than {MOST_ENTRIES} names to look through", hint="write a narrower pattern")
        return found
