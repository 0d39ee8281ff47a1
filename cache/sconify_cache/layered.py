"""A Store of Stores: the near one is written, far ones are asked for what it lacks.

Nothing far is trusted. A far blob is copied near while it is hashed and committed only under the digest it was asked
for. So a poisoned or broken shared cache can miss, and nothing else. (Records are layered in `shared.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.store import BlobWriter, MissingBlobError, Store, WritableStore

_COPY = 1 << 20
_T = TypeVar("_T")
Trouble = Callable[[StoreError], None]


def _silent(_error: StoreError) -> None:
    """Say nothing of a far store's failure."""


class _NotThisBlobError(Exception):
    """A far store gave other bytes than it was asked for."""


def _require(same: bool) -> None:
    if not same:
        raise _NotThisBlobError


class LayeredStore(WritableStore):
    """A WritableStore: everything lies `near`; `far` stores are read through, `publish` ones get copies of public blobs.

    Failures of far stores never stop a build: they are handed to `trouble` and count as a miss. `has` fetches what only
    a far store has, so that a yes means verified bytes on this machine. Private blobs are never published, and their
    digests are only asked for far away by whoever asks for a blob that is not near.
    """

    def __init__(
        self,
        near: WritableStore,
        far: Sequence[Store] = (),
        *,
        publish: Sequence[WritableStore] = (),
        trouble: Trouble = _silent,
    ) -> None:
        self._near = near
        self._far = tuple(far)
        self._publish = tuple(publish)
        self._trouble = trouble

    def has(self, digest: Digest) -> bool:
        """Whether it is near, or could be fetched and verified."""
        return self._near.has(digest) or self._fetch(digest)

    def size(self, digest: Digest) -> int:
        """Length of the near copy, fetched where needed."""
        return self._reading(digest, self._near.size)

    def get(self, digest: Digest) -> bytes:
        """Read the verified bytes."""
        return self._reading(digest, self._near.get)

    def open(self, digest: Digest) -> BinaryIO:
        """Open the near copy: what lies far could change after it was verified."""
        return self._reading(digest, self._near.open)

    def path(self, digest: Digest) -> Path:
        """Path of the near copy."""
        return self._reading(digest, self._near.path)

    def put(self, data: bytes, *, private: bool = False) -> Digest:
        """Add near, then publish."""
        digest = self._near.put(data, private=private)
        self._hand_out(digest, private=private)
        return digest

    @contextmanager
    def writer(self, *, private: bool = False) -> Iterator[BlobWriter]:
        """Write near, then publish."""
        with self._near.writer(private=private) as blob:
            yield blob
        self._hand_out(blob.digest, private=private)

    def adopt(self, path: Path, *, private: bool = False) -> Digest:
        """Take over near, then publish."""
        digest = self._near.adopt(path, private=private)
        self._hand_out(digest, private=private)
        return digest

    def scratch(self) -> AbstractContextManager[Path]:
        """Scratch of the near store."""
        return self._near.scratch()

    def _reading(self, digest: Digest, read: Callable[[Digest], _T]) -> _T:
        try:
            return read(digest)
        except MissingBlobError:
            if not self._fetch(digest):
                raise
        return read(digest)

    def _fetch(self, digest: Digest) -> bool:
        for store in self._far:
            try:
                source = store.open(digest)
            except MissingBlobError:
                continue
            except StoreError as error:
                self._trouble(error)
                continue
            with source:
                if self._copy(source, digest):
                    return True
        return False

    def _copy(self, source: BinaryIO, digest: Digest) -> bool:
        hasher = blake3()
        try:
            with self._near.writer() as blob:
                for piece in self._pieces(source):
                    hasher.update(piece)
                    blob.write(piece)
                # Before the block ends, so that wrong bytes are dropped and not kept under a name of their own.
                _require(hasher.hexdigest() == digest)
        except _NotThisBlobError:
            return False
        return True

    def _pieces(self, source: BinaryIO) -> Iterator[bytes]:
        """Yield what a far stream holds; where it fails, what came so far, which then has the wrong digest."""
        try:
            while piece := source.read(_COPY):
                yield piece
        except OSError as error:
            self._trouble(StoreError(f"cache: a far store failed: {error.strerror}", hint="look at the shared cache"))

    def _hand_out(self, digest: Digest, *, private: bool) -> None:
        if private:
            return
        for store in self._publish:
            try:
                if not store.has(digest):
                    with self._near.open(digest) as source, store.writer() as blob:
                        while piece := source.read(_COPY):
                            blob.write(piece)
            except StoreError as error:
                self._trouble(error)
