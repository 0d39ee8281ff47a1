"""Trees of a run: what a step encoded, the steps after it need not decode. A digest names one tree and no other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from sconify_cache.digest import Digest
from sconify_cache.store import WritableStore
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.tree import contents_of, decode_tree, encode_tree

_ENTRIES = 100_000
"""How many entries are kept in memory at most: some 40 MB."""

Tree = tuple[ManifestEntry, ...]


@dataclass(slots=True, kw_only=True)
class Trees:
    """Trees in a store, those that were used last in memory too. Safe for threads."""

    store: WritableStore
    _kept: OrderedDict[Digest, Tree] = field(default_factory=OrderedDict)
    _entries: int = 0
    _lock: Lock = field(default_factory=Lock)

    def put(self, entries: Iterable[ManifestEntry], *, private: bool = True) -> Digest:
        """Sort, encode and store; ValueError as of `encode_tree`."""
        ordered = tuple(sorted(entries, key=lambda entry: entry.meta.path))
        digest = self.store.put(encode_tree(ordered), private=private)
        # What a tree does not hold must not come out of it: hard links are no part of the format.
        if not any(entry.meta.hardlink for entry in ordered):
            self._keep(digest, ordered)
        return digest

    def get(self, digest: Digest) -> Tree:
        """The entries, sorted by path; MissingBlobError where the blob is gone or damaged."""
        with self._lock:
            if (found := self._kept.get(digest)) is not None:
                self._kept.move_to_end(digest)
                return found
        tree = decode_tree(self.store.get(digest))
        self._keep(digest, tree)
        return tree

    def contents(self, digest: Digest) -> dict[bytes, bytes]:
        """Content ids by path, of files alone; MissingBlobError as of `get`. A fraction of its cost."""
        with self._lock:
            found = self._kept.get(digest)
        if found is not None:
            return {entry.meta.path: entry.content for entry in found if entry.content}
        return contents_of(self.store.get(digest))

    def _keep(self, digest: Digest, tree: Tree) -> None:
        with self._lock:
            if digest in self._kept or len(tree) > _ENTRIES:
                return
            self._kept[digest] = tree
            self._entries += len(tree)
            while self._entries > _ENTRIES:
                self._entries -= len(self._kept.popitem(last=False)[1])
