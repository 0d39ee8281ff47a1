"""What the rows of the action cache name, read without their MAC: what a collection may take away, and nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_cache.index import Index
from sconify_cache.record import peek


class Action(Struct, frozen=True, kw_only=True):
    """A record: the blobs it names, and when it was written."""

    blobs: tuple[Digest, ...]
    stored_ns: int


class Pointer(Struct, frozen=True, kw_only=True):
    """What a scope (an image) used last for a step: the record's name."""

    scope: str
    record: str


class Named(Struct, frozen=True, kw_only=True):
    """Records and pointers by the names of their rows; all blobs that records name; rows that are neither."""

    records: Mapping[str, Action]
    pointers: Mapping[str, Pointer]
    blobs: frozenset[Digest]
    foreign: tuple[str, ...]

    def dead(self, there: Container[Digest], *, oldest_ns: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of records and of pointers that are of no use where only the blobs `there` are left.

        A record that names blobs lives as long as they do. One that names none (a check that passed) goes when it was
        written before `oldest_ns`, unless an image that still has blobs points at it. Foreign rows count as records.
        """
        whole = {name for name, action in self.records.items() if all(blob in there for blob in action.blobs)}
        with_blobs = {name for name in whole if self.records[name].blobs}
        living = {pointer.scope for pointer in self.pointers.values() if pointer.record in with_blobs}
        in_use = {pointer.record for pointer in self.pointers.values() if pointer.scope in living}
        dead = tuple(
            name
            for name, action in self.records.items()
            if name not in whole
            or (oldest_ns is not None and not action.blobs and action.stored_ns < oldest_ns and name not in in_use)
        )
        gone = set(dead)
        stale = (name for name, to in self.pointers.items() if to.record in gone or to.record not in self.records)
        return (*dead, *self.foreign), tuple(stale)


def read_names(index: Index) -> Named:
    """Read every row."""
    records: dict[str, Action] = {}
    pointers: dict[str, Pointer] = {}
    foreign: list[str] = []
    for row in index.rows():
        body = peek(row.text)
        try:
            if body is not None and body["kind"] == "latest":
                pointers[row.name] = Pointer(scope=str(body["scope"]), record=str(body["key"]))
            elif body is not None and body["kind"] == "action":
                records[row.name] = Action(blobs=_blobs(body), stored_ns=row.stored_ns)
            elif body is None:
                foreign.append(row.name)
            # A kind that this version does not know is left to the one that does.
        except (KeyError, TypeError, ValueError, AttributeError):
            foreign.append(row.name)
    blobs = frozenset(blob for action in records.values() for blob in action.blobs)
    return Named(records=records, pointers=pointers, blobs=blobs, foreign=tuple(foreign))


def _blobs(body: Mapping[str, Any]) -> tuple[Digest, ...]:
    return tuple(Digest(digest) for digest in body["outputs"].values())
