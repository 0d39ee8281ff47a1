"""ELF files among other files: what they need, found while their content streams by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from msgspec import Struct

from sconify_cache.keys import JSON
from sconify_tasks.elf import inspect
from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry

MAGIC = b"\x7fELF"
_BUFFER = 1 << 17
# A larger object is hashed like any file but not looked into: memory must not follow the size of a file.
LARGEST = 64 << 20


class ObjectFacts(Struct, frozen=True, kw_only=True):
    """One ELF file and the names of the libraries it asks the loader for."""

    path: str
    needed: tuple[str, ...]
    rpath: str = ""
    runpath: str = ""

    def as_json(self) -> JSON:
        """For a record."""
        return {"path": self.path, "needed": list(self.needed), "rpath": self.rpath, "runpath": self.runpath}


def objects_of(value: JSON) -> Iterator[ObjectFacts]:
    """The inverse of `as_json`, over a list."""
    assert isinstance(value, (list, tuple))
    for facts in value:
        assert isinstance(facts, Mapping)
        needed = facts["needed"]
        assert isinstance(needed, (list, tuple))
        yield ObjectFacts(
            path=str(facts["path"]),
            needed=tuple(str(name) for name in needed),
            rpath=str(facts["rpath"]),
            runpath=str(facts["runpath"]),
        )


def read_object(entry: Entry, head: bytes, content: BinaryIO) -> tuple[ObjectFacts | None, Iterable[bytes]]:
    """Return the facts of a file that starts with `head`, if it is ELF, and the blocks that follow `head`."""
    if not head.startswith(MAGIC) or entry.size > LARGEST:
        return None, _blocks(content)
    rest = list(_blocks(content))
    try:
        facts = inspect(b"".join((head, *rest)))
        found = ObjectFacts(
            path=entry.path.decode(),
            needed=tuple(name.decode() for name in facts.needed),
            rpath=facts.rpath.decode(),
            runpath=facts.runpath.decode(),
        )
    except (UsageError, UnicodeDecodeError):
        # Data that looks like ELF, or an object that no loader would take: a file like any other.
        return None, rest
    return found if found.needed else None, rest


def _blocks(content: BinaryIO) -> Iterator[bytes]:
    while block := content.read(_BUFFER):
        yield block
