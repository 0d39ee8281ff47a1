"""What one run sees: each file's stat, each index, the engine's listing, looked at once however many images ask."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sconify_tasks.settled.record import SettledImage
from sconify_tasks.settled.signature import Signature, settles_at, signature, tree_signature

_REF_NAME = "org.opencontainers.image.ref.name"
_LARGEST_INDEX = 64 << 20


class Sight:
    """The world as it is now, remembered.

    `trusted` are shared files (indexes, the CAS's database) by the stat that they had when everything noted of them was right:
    while that is their stat, they are not opened.
    """

    def __init__(
        self, *, state: Path, listing: Callable[[], Mapping[str, str] | None], trusted: Mapping[str, Signature | None]
    ) -> None:
        self._cas = str(state / "cas" / "sessions.sqlite")
        self._state, self._listing, self._trusted = state, listing, trusted
        self._stats: dict[str, os.stat_result | None] = {}
        self._signatures: dict[str, Signature | None] = {}
        self._trees: dict[str, str | None] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._hashes: dict[str, str | None] = {}
        self._engine: Mapping[str, str] | None = None
        self._asked = False
        self.opened_shared = False

    def holds(self, image: SettledImage) -> bool:
        """Whether everything noted of an image is still so."""
        signatures, look = self._signatures, self.signature
        for path, noted in image.files.items():
            if (signatures[path] if path in signatures else look(path)) != noted:
                return False
        for path, size in image.sizes.items():
            found = self.signature(path)
            if found is None or found[0] != size:
                return False
        return (
            all(self.signature(path) is None for path in image.absent)
            and all(self._tree(folder) == noted for folder, noted in image.trees.items())
            and self.shared_holds(image)
            and all(self.engine_id(name) == noted for name, noted in image.engine.items())
        )

    def shared_holds(self, image: SettledImage) -> bool:
        """Whether the indexes and the embedded CAS still say what is noted."""
        return all(self._is_trusted((index,)) or self.tag(index, tag) == noted for index, tag, noted in image.tags) and (
            not image.cas or self._is_trusted(cas_files(self._cas)) or self._cas_serves(image.cas)
        )

    def signature(self, path: str) -> Signature | None:
        """A file's signature; None where there is none that can be looked at."""
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
        return all(path in self._trusted and self.signature(path) == self._trusted[path] for path in paths)

    def _cas_serves(self, hashes: Mapping[str, str]) -> bool:
        from sconify_tasks.cas.embedded_hash import embedded_hashes

        self.opened_shared = True
        if missing := [name for name in hashes if name not in self._hashes]:
            self._hashes |= embedded_hashes(self._state, missing)
        return all(self._hashes.get(name) == noted for name, noted in hashes.items())

    def _tree(self, folder: str) -> str | None:
        if folder not in self._trees:
            try:
                self._trees[folder] = tree_signature(folder)[0]
            except OSError:
                self._trees[folder] = None
        return self._trees[folder]


def cas_files(database: str) -> tuple[str, str]:
    """What changes when the CAS does: the database, and its write-ahead log where a server has it open."""
    return database, database + "-wal"


def settled_before(paths: Iterable[str], at: int) -> bool:
    """Whether none of these files can have changed since `at` (ns) without a change of its stat, nor was changed after it."""
    for path in paths:
        try:
            if settles_at(os.stat(path)) > at:  # noqa: PTH116
                return False
        except OSError:
            continue
    return True


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
