"""Pruning keeps what is young, small enough or in use; verification finds what is damaged and the next build heals it."""

import os
import subprocess
import sys
import time

import pytest

from sconify_cache import gc
from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.local import USE_GRANULARITY_NS as DAY
from sconify_cache.local import LocalStore
from sconify_cache.record import Record

NOW = 1_700_000_000 * 10**9


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def store(tmp_path, clock):
    return LocalStore(tmp_path / "store", now=lambda: clock[0])


def aged(store, clock, ages_in_days, size=100):
    """One blob per age, oldest first."""
    digests = []
    for age in ages_in_days:
        clock[0] = NOW - age * DAY
        digests.append(store.put(b"%03d" % age + bytes(size - 3), private=age % 2 == 0))
    clock[0] = NOW
    return digests


def kept(store):
    return {blob.digest for blob in store.iterate()}


def prune(store, tmp_path, **limits):
    return gc.prune(store, folder=tmp_path / "store", now_ns=NOW, **limits)


def test_without_limits_nothing_goes(store, clock, tmp_path):
    digests = aged(store, clock, [90, 1])
    assert prune(store, tmp_path) == gc.Pruned(blobs=0, bytes=0, spared=0, records=0)
    assert kept(store) == set(digests)


def test_by_age_the_unused_go(store, clock, tmp_path):
    digests = aged(store, clock, [90, 31, 29, 0])
    assert prune(store, tmp_path, max_age_ns=30 * DAY) == gc.Pruned(blobs=2, bytes=200, spared=0, records=0)
    assert kept(store) == set(digests[2:])


def test_a_use_makes_a_blob_young(store, clock, tmp_path):
    digests = aged(store, clock, [90, 31])
    store.get(digests[0])
    prune(store, tmp_path, max_age_ns=30 * DAY)
    assert kept(store) == {digests[0]}


@pytest.mark.parametrize(("limit", "left"), [(400, 4), (399, 3), (250, 2), (100, 1), (0, 0)])
def test_by_size_the_least_recently_used_go_until_it_fits(store, clock, tmp_path, limit, left):
    digests = aged(store, clock, [9, 7, 5, 3])
    prune(store, tmp_path, max_bytes=limit)
    assert kept(store) == set(digests[len(digests) - left :])


def test_records_of_what_is_gone_go_too(store, clock, tmp_path):
    digests = aged(store, clock, [90, 1])
    actions = ActionCache(tmp_path / "actions", mac_key=bytes(32))
    names = [Digest(f"{number:064x}") for number in range(3)]
    for name, outputs in zip(names, [{"a": digests[0], "b": digests[1]}, {"b": digests[1]}, {}], strict=True):
        actions.record(Record(key=name, step="encrypt", outputs=outputs))
    assert prune(store, tmp_path, max_age_ns=30 * DAY, actions=actions).records == 1
    assert {record.key for record in actions.records()} == set(names[1:])
    actions.close()


BUILDER = """
import sys, time
from pathlib import Path
from sconify_cache import gc
with gc.building(Path(sys.argv[1])):
    print("building", flush=True)
    time.sleep(60)
"""


def test_what_a_running_build_may_need_is_spared_and_a_killed_build_protects_nothing(store, clock, tmp_path):
    old, *_ = aged(store, clock, [90])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, tmp_path / "store"], stdout=subprocess.PIPE, text=True, env=env
    ) as builder:
        assert builder.stdout.readline() == "building\n"
        (lease,) = gc.running(tmp_path / "store")
        clock[0] = lease.since_ns - DAY + 1
        young = store.put(b"young enough to be relied on")
        assert prune(store, tmp_path, max_bytes=0) == gc.Pruned(blobs=1, bytes=100, spared=1, records=0)
        assert kept(store) == {young}
        builder.kill()
    assert gc.running(tmp_path / "store") == ()
    prune(store, tmp_path, max_bytes=0)
    assert kept(store) == set()
    assert old not in kept(store)


def test_a_lease_ends_with_the_build(tmp_path):
    with gc.building(tmp_path / "store") as own:
        assert gc.running(tmp_path / "store") == (own,)
    assert gc.running(tmp_path / "store") == ()


def test_a_blob_that_is_used_while_prune_runs_is_spared(store, clock, tmp_path):
    digest, *_ = aged(store, clock, [90])

    class Busy(LocalStore):
        def delete(self, wanted, **more):
            assert store.has(wanted)  # a build comes between the listing and the deletion
            return super().delete(wanted, **more)

    busy = Busy(tmp_path / "store", now=lambda: NOW)
    assert prune(busy, tmp_path, max_age_ns=30 * DAY).spared == 1
    assert kept(store) == {digest}


def test_a_build_that_starts_while_prune_runs_keeps_what_it_found(store, tmp_path):
    digest = store.put(b"used an hour ago: finding it again writes no time")

    class Busy(LocalStore):
        def delete(self, wanted, **more):
            with gc.building(tmp_path / "store"):
                assert self.has(wanted)
                return super().delete(wanted, **more)

    busy = Busy(tmp_path / "store")
    os.utime(store.path(digest), ns=(time.time_ns() - 3600 * 10**9, 0))
    assert gc.prune(busy, folder=tmp_path / "store", now_ns=time.time_ns(), max_bytes=0).spared == 1
    assert kept(store) == {digest}


def test_verify_reads_everything_and_sets_aside_what_is_damaged(store, tmp_path):
    good, bad, empty = store.put(b"good" * 10), store.put(b"bad" * 10, private=True), store.put(b"to be emptied")
    for digest, content in ((bad, b"BAD" * 10), (empty, b"")):
        path = store.path(digest)
        path.chmod(0o600)
        path.write_bytes(content)
    found = gc.verify(store)
    assert (found.blobs, found.bytes, set(found.damaged)) == (1, 40, {bad, empty})
    assert store.put(b"bad" * 10) == bad
    assert store.put(b"to be emptied") == empty
    assert gc.verify(store).damaged == ()
    assert kept(store) == {good, bad, empty}


def test_stats_count_without_reading(store, clock):
    assert gc.stats(store) == gc.Stats(blobs=0, bytes=0, private=0, oldest_use_ns=None)
    aged(store, clock, [4, 3, 2])
    assert gc.stats(store) == gc.Stats(blobs=3, bytes=300, private=2, oldest_use_ns=NOW - 4 * DAY)
