"""Keeping the cache small and sound: collect by age and size, verify, count.

Needs no key: what is decided here is only what may go, and what goes can be made again. So records of every project in the
cache are read, without their MAC.

A running build holds a lease (`building`). Collecting spares what any build that still runs may rely on: everything used
since the oldest of them began, with the day that "last use" is exact to. A build that was killed holds no lease.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct

from sconify_cache import lease
from sconify_cache.digest import Digest
from sconify_cache.folder import disk_errors, make_private
from sconify_cache.index import Index
from sconify_cache.local import USE_GRANULARITY_NS
from sconify_cache.named import Named, read_names
from sconify_cache.store import BlobInfo, MissingBlobError, PrunableStore

_LEASES: Final = "leases"


class Collected(Struct, frozen=True, kw_only=True):
    """What a collection did, or would do. `spared` blobs were to go, but a running build may need them."""

    blobs: int
    bytes: int
    spared: int = 0
    records: int = 0
    pointers: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0


class Verified(Struct, frozen=True, kw_only=True):
    """What a verification read.

    `damaged` blobs are absent from now on if it repaired. `incomplete` records name a blob that is not there, so their
    steps will run again.
    """

    blobs: int
    bytes: int
    damaged: tuple[Digest, ...] = ()
    incomplete: int = 0


class Stats(Struct, frozen=True, kw_only=True):
    """What a cache holds."""

    blobs: int
    bytes: int
    private: int
    oldest_use_ns: int | None
    records: int = 0
    unnamed: int = 0
    unnamed_bytes: int = 0


@contextmanager
def building(folder: Path) -> Iterator[lease.Lease]:
    """Hold a lease on the store in `folder` while a build relies on its blobs.

    Only what was found (`has`, `path`) after the lease was taken is safe. A run that finds nothing to do relies on
    nothing and needs none: so it writes nothing. One that does takes the lease and asks again for what it will use.
    Leases of dead builds go on this occasion.
    """
    leases = folder / _LEASES
    make_private(folder)
    make_private(leases)
    running(folder)
    with lease.held(leases) as own:
        yield own


def running(folder: Path) -> tuple[lease.Lease, ...]:
    """List the builds that hold a lease now; leases of dead ones are removed."""
    return lease.survey(folder / _LEASES, lambda _name: None)


def collect(
    store: PrunableStore,
    *,
    folder: Path,
    now_ns: int,
    index: Index | None = None,
    max_bytes: int | None = None,
    max_age_ns: int | None = None,
    dry_run: bool = False,
) -> Collected:
    """Delete what no record names, what was unused for `max_age_ns`, then the least recently used beyond `max_bytes`.

    A blob without a record gets a day's grace: a build that runs has not recorded it yet, and one that was killed may be
    run again. Then go the records that name a blob which is gone, and what `latest` points at nothing.
    """
    # Blobs before records: a build that ends meanwhile has then recorded whatever of it was listed.
    blobs = sorted(store.iterate(), key=lambda blob: (blob.used_ns, blob.digest))
    named = None if index is None else read_names(index)
    oldest = None if max_age_ns is None else now_ns - max_age_ns
    unnamed_oldest = max(now_ns - USE_GRANULARITY_NS, oldest or 0)
    unnamed = {
        blob.digest for blob in blobs if named is not None and blob.used_ns < unnamed_oldest and blob.digest not in named.blobs
    }
    doomed = _doomed(blobs, unnamed, oldest=oldest, max_bytes=max_bytes)
    if dry_run:
        gone = [blob for blob in doomed if not _needed(folder, blob.used_ns, blob.used_ns)]
    else:
        gone = [blob for blob in doomed if store.delete(blob.digest, spare=partial(_needed, folder, blob.used_ns))]
        store.discard_damaged()
    left = _Left(store=store, gone=frozenset(blob.digest for blob in gone), listed=frozenset(blob.digest for blob in blobs))
    records, pointers = _collect_records(index, named, left, oldest=oldest, dry_run=dry_run)
    went = sum(blob.size for blob in gone)
    return Collected(
        blobs=len(gone),
        bytes=went,
        spared=len(doomed) - len(gone),
        records=records,
        pointers=pointers,
        kept_blobs=len(blobs) - len(gone),
        kept_bytes=sum(blob.size for blob in blobs) - went,
    )


def verify(store: PrunableStore, *, index: Index | None = None, repair: bool = True) -> Verified:
    """Hash every blob again. To repair is to set damaged ones aside, so that the next build makes them anew."""
    named = None if index is None else read_names(index)  # before the blobs: what a record names now is there by then
    count = size = 0
    whole: set[Digest] = set()
    damaged: list[Digest] = []
    for blob in store.iterate():
        try:
            size += store.check(blob.digest, repair=repair)
        except MissingBlobError as error:
            if error.damaged:
                damaged.append(blob.digest)
            continue
        count += 1
        whole.add(blob.digest)
    dead: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()) if named is None else named.dead(whole, oldest_ns=None)
    if index is not None and repair:
        store.discard_damaged()
        if dead[0] or dead[1]:
            index.delete((*dead[0], *dead[1]))
    return Verified(blobs=count, bytes=size, damaged=tuple(damaged), incomplete=len(dead[0]))


def stats(store: PrunableStore, *, index: Index | None = None) -> Stats:
    """Count, without reading a blob."""
    blobs = list(store.iterate())
    named = None if index is None else read_names(index)
    unnamed = [blob for blob in blobs if named is not None and blob.digest not in named.blobs]
    return Stats(
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        private=sum(blob.private for blob in blobs),
        oldest_use_ns=min((blob.used_ns for blob in blobs), default=None),
        records=0 if named is None else len(named.records),
        unnamed=len(unnamed),
        unnamed_bytes=sum(blob.size for blob in unnamed),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left(Container[Digest]):
    """The blobs that a collection leaves: those it listed, and those that came meanwhile."""

    store: PrunableStore
    listed: frozenset[Digest]
    gone: frozenset[Digest]

    def __contains__(self, digest: object) -> bool:
        if digest in self.gone or not isinstance(digest, Digest):
            return False
        return digest in self.listed or self.store.has(digest)


def _needed(folder: Path, listed_ns: int, used_ns: int) -> bool:
    """Whether a blob was used since it was listed, or a build that runs now may have found it.

    A build takes its lease before it looks for blobs, and the blob is out of reach while this is asked: so whoever found
    it is seen here.
    """
    oldest = min((held.since_ns for held in running(folder)), default=None)
    return used_ns > listed_ns or (oldest is not None and used_ns >= oldest - USE_GRANULARITY_NS)


def _doomed(blobs: list[BlobInfo], unnamed: set[Digest], *, oldest: int | None, max_bytes: int | None) -> list[BlobInfo]:
    """Of blobs in the order of their last use: those without a name or too old, and then as many as are too much."""
    doomed = [blob for blob in blobs if blob.digest in unnamed or (oldest is not None and blob.used_ns < oldest)]
    if max_bytes is None:
        return doomed
    going = {blob.digest for blob in doomed}
    excess = sum(blob.size for blob in blobs) - max_bytes - sum(blob.size for blob in doomed)
    for blob in blobs:
        if excess <= 0:
            break
        if blob.digest not in going:
            doomed.append(blob)
            excess -= blob.size
    return doomed


def _collect_records(
    index: Index | None, named: Named | None, left: Container[Digest], *, oldest: int | None, dry_run: bool
) -> tuple[int, int]:
    if index is None or named is None:
        return 0, 0
    records, pointers = named.dead(left, oldest_ns=oldest)
    if not dry_run and (records or pointers):
        index.delete((*records, *pointers))
        index.compact()
    return len(records), len(pointers)


def collect_daily(store: PrunableStore, *, folder: Path, now_ns: int, index: Index, max_bytes: int) -> Collected | None:
    """Collect if it was not done for a day; else None, for the price of one stat. For the end of builds that wrote."""
    stamp = folder / "collected"
    with suppress(FileNotFoundError):
        if 0 <= now_ns - stamp.stat().st_mtime_ns < USE_GRANULARITY_NS:
            return None
    with disk_errors(stamp):
        stamp.touch(mode=0o600)
        os.utime(stamp, ns=(now_ns, now_ns))
    return collect(store, folder=folder, now_ns=now_ns, index=index, max_bytes=max_bytes)
