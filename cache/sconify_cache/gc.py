"""Keeping the store small and sound: prune by age and size, verify, count.

A running build holds a lease (`building`). Prune spares what any build that still runs may rely on: everything used
since the oldest of them began, with the day that "last use" is exact to. A build that was killed holds no lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sconify_cache import lease
from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.folder import make_private
from sconify_cache.local import USE_GRANULARITY_NS
from sconify_cache.store import BlobInfo, MissingBlobError, PrunableStore

_LEASES: Final = "leases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune did. `spared` blobs were to go, but a running build may need them."""

    blobs: int
    bytes: int
    spared: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification read, and which blobs were damaged (they are set aside: absent from now on)."""

    blobs: int
    bytes: int
    damaged: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a store holds."""

    blobs: int
    bytes: int
    private: int
    oldest_use_ns: int | None


@contextmanager
def building(folder: Path) -> Iterator[lease.Lease]:
    """Hold a lease on the store in `folder` while a build relies on its blobs.

    Only what was found (`has`, `path`) after the lease was taken is safe. A run that finds nothing to do relies on
    nothing and needs none: so it writes nothing. One that does takes the lease and asks again for what it will use.
    """
    leases = folder / _LEASES
    make_private(folder)
    make_private(leases)
    with lease.held(leases) as own:
        yield own


def running(folder: Path) -> tuple[lease.Lease, ...]:
    """List the builds that hold a lease now; leases of dead ones are removed."""
    return lease.survey(folder / _LEASES, lambda _name: None)


def prune(
    store: PrunableStore,
    *,
    folder: Path,
    now_ns: int,
    max_bytes: int | None = None,
    max_age_ns: int | None = None,
    actions: ActionCache | None = None,
) -> Pruned:
    """Delete blobs unused for `max_age_ns`, then the least recently used until `max_bytes` are left.

    Records in `actions` that name a blob which is gone go too. Blobs set aside as damaged are deleted for good.
    """
    blobs = sorted(store.iterate(), key=lambda blob: (blob.used_ns, blob.digest))
    doomed = _doomed(blobs, oldest=None if max_age_ns is None else now_ns - max_age_ns, max_bytes=max_bytes)
    gone = [blob for blob in doomed if store.delete(blob.digest, spare=partial(_needed, folder, blob.used_ns))]
    store.discard_damaged()
    records = 0 if actions is None else _prune_records(actions, {blob.digest for blob in store.iterate()})
    return Pruned(blobs=len(gone), bytes=sum(blob.size for blob in gone), spared=len(doomed) - len(gone), records=records)


def verify(store: PrunableStore) -> Verified:
    """Hash every blob again. Damaged ones are set aside, so that the next build makes them anew: that is the repair."""
    count = size = 0
    damaged: list[Digest] = []
    for blob in store.iterate():
        try:
            size += store.check(blob.digest)
        except MissingBlobError as error:
            if error.damaged:
                damaged.append(blob.digest)
            continue
        count += 1
    return Verified(blobs=count, bytes=size, damaged=tuple(damaged))


def stats(store: PrunableStore) -> Stats:
    """Count, without reading a blob."""
    blobs = list(store.iterate())
    return Stats(
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        private=sum(blob.private for blob in blobs),
        oldest_use_ns=min((blob.used_ns for blob in blobs), default=None),
    )


def _needed(folder: Path, listed_ns: int, used_ns: int) -> bool:
    """Whether a blob was used since it was listed, or a build that runs now may have found it.

    A build takes its lease before it looks for blobs, and the blob is out of reach while this is asked: so whoever found
    it is seen here.
    """
    oldest = min((held.since_ns for held in running(folder)), default=None)
    return used_ns > listed_ns or (oldest is not None and used_ns >= oldest - USE_GRANULARITY_NS)


def _doomed(blobs: list[BlobInfo], *, oldest: int | None, max_bytes: int | None) -> list[BlobInfo]:
    """Of blobs in the order of their last use: those that are too old, and then as many as are too much."""
    excess = 0 if max_bytes is None else sum(blob.size for blob in blobs) - max_bytes
    doomed = []
    for blob in blobs:
        too_old = oldest is not None and blob.used_ns < oldest
        if not too_old and excess <= 0:
            break
        doomed.append(blob)
        excess -= blob.size
    return doomed


def _prune_records(actions: ActionCache, there: set[Digest]) -> int:
    return actions.prune(lambda record: all(digest in there for digest in record.outputs.values()))
