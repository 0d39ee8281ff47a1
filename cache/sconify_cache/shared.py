"""A cache that machines share, in a folder (`shared_folder.py`), layered under the local one. Public actions only.

A file of the folder is asked for only by its action: a record counts if it has this project's MAC for the very action
asked for, and it says how many bytes each blob has. Such a blob is copied into the local store while it is hashed, and
committed only under the digest that the record names. So whoever writes to the folder can make us miss, and nothing else:
not believe, not fill the disk, not wait. A blob is read once. Digests of what is private are never asked for there.

Failures never stop a build: they are told once, and the folder is left alone for the rest of the run.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.keys import JSON
from sconify_cache.record import VERSION, Record, Records, parse_record, seal, unseal
from sconify_cache.shared_folder import SharedFolder
from sconify_cache.store import MissingBlobError, WritableStore

_LARGEST_RECORD: Final = 4 << 20
_COPY: Final = 1 << 20
_KIND: Final = "shared action"
_ACTIONS, _BLOBS = "actions", "blobs"


class _OtherBytesError(Exception):
    """The folder gave other bytes than it was asked for."""


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What went to and fro: for reports, and for tests that count."""

    taken: int = 0
    published: int = 0
    refused: int = 0


class SharedCache:
    """Records and blobs of public actions below `folder`, between a local store and other machines. Safe for threads."""

    def __init__(
        self, folder: Path, *, mac_key: bytes, store: WritableStore, actions: Records, trouble: Callable[[StoreError], None]
    ) -> None:
        self._folder = folder
        self._files = SharedFolder(folder)
        self._mac_key = mac_key
        self._store = store
        self._actions = actions
        self._trouble = trouble
        self._reads = self._writes = True
        self._lock = threading.Lock()
        self.traffic = Traffic()

    def recall(self, key: Digest) -> Record | None:
        """Take over the record of an action with all of its blobs; None where anything of it is not to be had."""
        found = self._found(key)
        if found is None:
            return None
        record, sizes = found
        if not all(self._store.has(digest) or self._take(digest, sizes.get(digest)) for digest in record.outputs.values()):
            return None
        self._actions.record(record)
        with self._lock:
            self.traffic.taken += 1
        return record

    def offered(self, key: Digest) -> Record | None:
        """The record that `recall` would take over, by the lengths of its blobs; nothing is copied or kept."""
        found = self._found(key)
        if found is None:
            return None
        record, sizes = found
        whole = all(self._store.has(digest) or self._has(digest, sizes.get(digest)) for digest in record.outputs.values())
        return record if whole else None

    def publish(self, record: Record) -> None:
        """Give the record of a public action, and before it its blobs, to the other machines."""
        if record.secret:
            raise StoreError(
                f"cache: the secret record of step {record.step} was to be shared", hint="this is a bug: report it"
            )
        if not self._writes:
            return
        try:
            if any(self._store.is_private(digest) for digest in record.outputs.values()):
                raise StoreError(
                    f"cache: a private blob of step {record.step} was to be shared", hint="this is a bug: report it"
                )
            sizes = {digest: self._store.size(digest) for digest in record.outputs.values()}
        except MissingBlobError:
            return  # pruned already, or damaged: the next build makes it again
        known: dict[str, JSON] = {str(digest): size for digest, size in sizes.items()}
        body: dict[str, JSON] = {"v": VERSION, "kind": _KIND, "sizes": known, "record": record.as_json()}
        try:
            self._require_folder()
            for digest, size in sizes.items():
                if not self._is_there(digest, size):
                    with self._store.open(digest) as stream:
                        self._files.write(_BLOBS, digest, _pieces(stream))
            self._files.write(_ACTIONS, record.key, [seal(body, self._mac_key).encode()])
        except OSError as error:
            self._give_up(error, reading=False)
        except MissingBlobError:
            return
        else:
            with self._lock:
                self.traffic.published += 1

    def _has(self, digest: Digest, size: int | None) -> bool:
        if size is None or (stream := self._blob(digest, size)) is None:
            return False
        stream.close()
        return True

    def _is_there(self, digest: Digest, size: int) -> bool:
        """Whether the folder has the very bytes. To read them costs less than to leave a poisoned blob to everybody."""
        stream = self._files.open(_BLOBS, digest, size=size)
        if stream is None:
            return False
        with stream:
            hasher = blake3()
            for piece in _at_most(size, stream):
                hasher.update(piece)
        return hasher.hexdigest() == digest

    def _found(self, key: Digest) -> tuple[Record, Mapping[Digest, int]] | None:
        """As `_lookup`, for as long as the folder can be read."""
        if not self._reads:
            return None
        try:
            return self._lookup(key)
        except OSError as error:
            self._give_up(error, reading=True)
            return None

    def _blob(self, digest: Digest, size: int) -> BinaryIO | None:
        """What the folder has under a blob's name, if it is of that size; None as well where it can't be read any more."""
        try:
            return self._files.open(_BLOBS, digest, size=size)
        except OSError as error:
            self._give_up(error, reading=True)
            return None

    def _lookup(self, key: Digest) -> tuple[Record, Mapping[Digest, int]] | None:
        stream = self._files.open(_ACTIONS, key)
        if stream is None:
            self._require_folder()
            return None
        with stream:
            data = stream.read(_LARGEST_RECORD + 1)
        body = None if len(data) > _LARGEST_RECORD else unseal(data.decode("utf-8", "surrogateescape"), self._mac_key)
        if body is None or (body.get("v"), body.get("kind")) != (VERSION, _KIND):
            self._refuse()
            return None
        record = parse_record(body["record"])
        # Moved under another action's name, or of a step that somebody once thought public.
        if record.key != key or record.secret:
            self._refuse()
            return None
        return record, {Digest(digest): int(size) for digest, size in body["sizes"].items()}

    def _require_folder(self) -> None:
        """Raise OSError where the folder is not there: it is never made, because it may be one that was not mounted."""
        if not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folder))

    def _refuse(self) -> None:
        with self._lock:
            self.traffic.refused += 1

    def _take(self, digest: Digest, size: int | None) -> bool:
        """Copy a blob near. Whatever the folder does can only miss; the local disk's failures are raised."""
        if size is None or (stream := self._blob(digest, size)) is None:
            return False
        try:
            with stream, self._store.writer() as blob:
                for piece in self._bounded(stream, size):
                    blob.write(piece)
                # Before the block ends, so that wrong bytes are dropped and not kept under a name of their own.
                if blob.so_far() != digest:
                    raise _OtherBytesError  # noqa: TRY301 - it is what ends the writer's block
        except _OtherBytesError:
            self._refuse()
            return False
        return True

    def _bounded(self, stream: BinaryIO, size: int) -> Iterator[bytes]:
        """What a stream of the folder holds, `size` bytes at most; where it fails, what came so far."""
        try:
            yield from _at_most(size, stream)
        except OSError as error:
            self._give_up(error, reading=True)

    def _give_up(self, error: OSError, *, reading: bool) -> None:
        """Leave the folder alone from now on, and say why, once a run."""
        with self._lock:
            first = self._reads and self._writes
            self._writes = False
            if reading:
                self._reads = False
        if first:
            doing = "read" if reading else "written"
            self._trouble(
                StoreError(
                    f"shared cache: {self._folder} can't be {doing}: {error.strerror or error}",
                    hint="the build goes on without it",
                )
            )


def _at_most(size: int, stream: BinaryIO) -> Iterator[bytes]:
    while size > 0 and (piece := stream.read(min(size, _COPY))):
        size -= len(piece)
        yield piece


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_COPY):
        yield piece
