"""What one run sees: each file's stat, each index, the engine's listing, looked at once however many images ask."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sconify_tasks.settled.form import Memory
from sconify_tasks.settled.record import SettledImage
from sconify_tasks.settled.signature import Signature, signature

_REF_NAME = "org.opencontainers.image.ref.name"
_LARGEST_INDEX = 64 << 20


class Sight:
    """The world as it is now, beside what a memory says of it. What is shared is looked at once.

    Shared files (indexes, the CAS's database) are not opened while their stat is the one under which all that the memory says
    of them was right.
    """

    def __init__(self, *, state: Path, listing: Callable[[], Mapping[str, str] | None], memory: Memory) -> None:
        self._cas = str(state / "cas" / "sessions.sqlite")
        self._state, self._listing, self._memory = state, listing, memory
        self._signatures: dict[str, Signature | None] = {}
        self._groups: dict[str, str | None] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._hashes: dict[str, str] | None = None
        self._engine: Mapping[str, str] | None = None
        self._asked = False
        self.opened_shared = False

    def holds(self, image: SettledImage) -> bool:
        """Whether everything noted of an image is still so."""
        return (
            image.watch.holds()
            and all(self._group(name) == noted for name, noted in image.shared.items())
            and self.shared_holds(image)
            and all(self.engine_id(name) == noted for name, noted in image.engine.items())
        )

    def shared_holds(self, image: SettledImage, *, trust: bool = True) -> bool:
        """Whether the indexes and the embedded CAS still say what is noted."""
        for index, tag, noted in image.tags:
            if not (trust and self._is_trusted((index,))) and self.tag(index, tag) != noted:
                return False
        return not image.cas or (trust and self._is_trusted(cas_files(self._cas))) or self._cas_serves(image)

    def signature(self, path: str) -> Signature | None:
        """A shared file's signature; None where there is none that can be looked at."""
        if path not in self._signatures:
            try:
                self._signatures[path] = signature(os.stat(path))  # noqa: PTH116 - a Path costs more than the stat
            except OSError:
                self._signatures[path] = None
        return self._signatures[path]

    def engine_id(self, name: str) -> str | None:
        """The engine's Id of a name. One listing answers for all."""
        if not self._asked:
            self._engine, self._asked = self._listing(), True
        return None if self._engine is None else self._engine.get(name)

    def tag(self, index: str, tag: str) -> str:
        """A digest of the entries of an index.json for a tag; of all entries for an empty one."""
        if index not in self._tags:
            self.opened_shared = True
            self._tags[index] = _digests(_entries(index))
        return self._tags[index].get(tag, "")

    def shared(self, images: Iterable[SettledImage]) -> dict[str, Signature | None]:
        """The stat of every shared file that these images speak of."""
        paths = {index for image in images for index, _, _ in image.tags}
        return {path: self.signature(path) for path in (*sorted(paths), *cas_files(self._cas))}

    def _is_trusted(self, paths: tuple[str, ...]) -> bool:
        trusted = self._memory.shared
        return all(path in trusted and self.signature(path) == trusted[path] for path in paths)

    def _cas_serves(self, image: SettledImage) -> bool:
        self.opened_shared = True
        if self._hashes is None:
            from sconify_tasks.cas.embedded_hash import embedded_hashes

            noted = self._memory.images.values()
            self._hashes = embedded_hashes(self._state, [each.session for each in noted if each.cas])
        return self._hashes.get(image.session) == image.cas

    def _group(self, name: str) -> str | None:
        if name not in self._groups:
            group = self._memory.groups.get(name)
            self._groups[name] = None if group is None else group.now()
        return self._groups[name]


def cas_files(database: str) -> tuple[str, str]:
    """What changes when the CAS does: the database, and its write-ahead log where a server has it open."""
    return database, database + "-wal"


def _entries(index: str) -> list[object]:
    try:
        with open(index, "rb") as file:  # noqa: PTH123
            document = json.loads(file.read(_LARGEST_INDEX))
        manifests = document["manifests"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return manifests if isinstance(manifests, list) else []


def _digests(entries: list[object]) -> dict[str, str]:
    by_tag: dict[str, list[object]] = {}
    for entry in entries:
        annotations = entry.get("annotations") if isinstance(entry, dict) else None
        tag = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
        if isinstance(tag, str) and tag:
            by_tag.setdefault(tag, []).append(entry)
    by_tag[""] = entries
    return {tag: hashlib.blake2b(json.dumps(found).encode(), digest_size=32).hexdigest() for tag, found in by_tag.items()}
