"""Pruning keeps what is young, small enough or in use; verification finds what is damaged and the next build heals it."""

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from sconify_cache import gc
from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.index import Index
from sconify_cache.local import USE_GRANULARITY_NS as DAY
from sconify_cache.local import LocalStore
from sconify_cache.record import Record, seal

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
    return gc.collect(store, folder=tmp_path / "store", now_ns=NOW, **limits)


def test_without_limits_nothing_goes(store, clock, tmp_path):
    digests = aged(store, clock, [90, 1])
    assert prune(store, tmp_path) == gc.Collected(blobs=0, bytes=0, kept_blobs=2, kept_bytes=200)
    assert kept(store) == set(digests)


def test_by_age_the_unused_go(store, clock, tmp_path):
    digests = aged(store, clock, [90, 31, 29, 0])
    assert prune(store, tmp_path, max_age_ns=30 * DAY) == gc.Collected(blobs=2, bytes=200, kept_blobs=2, kept_bytes=200)
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


@pytest.fixture
def indexed(store, tmp_path):
    """Both halves of a cache, and the index that a collection reads."""
    actions = ActionCache(tmp_path / "actions", mac_key=bytes(32))
    index = Index(tmp_path / "actions")
    yield actions, index
    actions.close()
    index.close()


def name(number):
    return Digest(f"{number:064x}")


def test_records_of_what_is_gone_go_too_and_pointers_at_them_whatever_project_they_are_of(store, clock, tmp_path, indexed):
    digests = aged(store, clock, [90, 1])
    actions, index = indexed
    other = ActionCache(tmp_path / "actions", mac_key=bytes(31) + b"x")
    for cache, number, outputs in (
        (actions, 0, {"a": digests[0], "b": digests[1]}),
        (actions, 1, {"b": digests[1]}),
        (other, 2, {"a": digests[0]}),
        (other, 3, {"b": digests[1]}),
    ):
        record = Record(key=name(number), step=f"step{number}", outputs=outputs)
        cache.record(record)
        cache.remember("image", record)
    found = prune(store, tmp_path, max_age_ns=30 * DAY, index=index)
    assert (found.records, found.pointers) == (2, 2)
    assert {record.key for record in actions.records()} == {name(1)}
    assert {record.key for record in other.records()} == {name(3)}
    assert actions.latest("image", "step0") is None
    assert actions.latest("image", "step1").key == name(1)
    other.close()


def test_a_blob_that_no_record_names_goes_after_a_day(store, clock, tmp_path, indexed):
    named, unnamed, fresh = aged(store, clock, [5, 4, 0])
    actions, index = indexed
    actions.record(Record(key=name(1), step="encrypt", outputs={"layer": named}))
    assert gc.stats(store, index=index).unnamed == 2
    assert prune(store, tmp_path, index=index).blobs == 1
    assert kept(store) == {named, fresh}
    assert unnamed not in kept(store)


def test_a_record_without_blobs_lives_while_an_image_that_has_some_points_at_it(store, clock, tmp_path, indexed):
    (blob,) = aged(store, clock, [1])
    actions, index = indexed
    layer = Record(key=name(1), step="encrypt", outputs={"layer": blob})
    used, unused, fresh = (Record(key=name(number), step="verify") for number in (2, 3, 4))
    for record in (layer, used, unused, fresh):
        actions.record(record)
    actions.remember("image", layer)
    actions.remember("image", used)
    actions.remember("image that is no more", unused)
    planted = sqlite3.connect(index.file, isolation_level=None)
    planted.execute("UPDATE Cache SET store_time = ? WHERE key != ?", (NOW / 10**9 - 90 * 86400, fresh.key))
    planted.close()
    found = prune(store, tmp_path, max_age_ns=30 * DAY, index=index)
    assert (found.records, found.pointers) == (1, 1)
    assert {record.key for record in actions.records()} == {layer.key, used.key, fresh.key}


def test_rows_that_are_no_records_go_and_those_of_another_version_stay(store, tmp_path, indexed):
    actions, index = indexed
    actions.record(Record(key=name(1), step="encrypt"))
    for row, text in (("junk", "junk"), ("wrong", seal({"kind": "action", "outputs": {"a": "../.."}}, bytes(32)))):
        index.write({row: text})
    index.write({"new": seal({"kind": "of a later version"}, bytes(32))})
    assert prune(store, tmp_path, index=index).records == 2
    assert {row.name for row in index.rows()} == {name(1), "new"}


def test_a_dry_run_says_what_a_run_then_does_and_removes_nothing(store, clock, tmp_path, indexed):
    digests = aged(store, clock, [90, 31, 1])
    actions, index = indexed
    for number, digest in enumerate(digests):
        actions.record(Record(key=name(number), step="encrypt", outputs={"layer": digest}))
    limits = {"max_age_ns": 60 * DAY, "max_bytes": 150, "index": index}
    said = prune(store, tmp_path, dry_run=True, **limits)
    assert kept(store) == set(digests)
    assert len(list(actions.records())) == 3
    assert prune(store, tmp_path, **limits) == said
    assert (said.blobs, said.records) == (2, 2)


def test_a_record_made_while_a_collection_runs_stays(store, clock, tmp_path, indexed):
    aged(store, clock, [9])
    actions, index = indexed

    class Busy(LocalStore):
        def iterate(self):
            yield from list(super().iterate())
            late = store.put(b"late")
            actions.record(Record(key=name(1), step="encrypt", outputs={"layer": late}))

    prune(Busy(tmp_path / "store", now=lambda: NOW), tmp_path, max_bytes=0, index=index)
    assert [record.key for record in actions.records()] == [name(1)]
    assert len(kept(store)) == 1


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
        assert prune(store, tmp_path, max_bytes=0) == gc.Collected(
            blobs=1, bytes=100, spared=1, kept_blobs=1, kept_bytes=len(b"young enough to be relied on")
        )
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
    assert gc.collect(busy, folder=tmp_path / "store", now_ns=time.time_ns(), max_bytes=0).spared == 1
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


def test_verify_without_repair_changes_nothing(store, indexed):
    actions, index = indexed
    good, bad = store.put(b"good"), store.put(b"bad")
    path = store.path(bad)
    path.chmod(0o600)
    path.write_bytes(b"BAD")
    for number, digest in enumerate((good, bad)):
        actions.record(Record(key=name(number), step="encrypt", outputs={"layer": digest}))
    for _ in range(2):
        assert gc.verify(store, index=index, repair=False) == gc.Verified(blobs=1, bytes=4, damaged=(bad,), incomplete=1)
    assert path.read_bytes() == b"BAD"
    assert gc.verify(store, index=index).damaged == (bad,)
    assert gc.verify(store, index=index) == gc.Verified(blobs=1, bytes=4)
    assert [record.key for record in actions.records()] == [name(0)]


def test_stats_count_without_reading(store, clock):
    assert gc.stats(store) == gc.Stats(blobs=0, bytes=0, private=0, oldest_use_ns=None)
    aged(store, clock, [4, 3, 2])
    assert gc.stats(store) == gc.Stats(blobs=3, bytes=300, private=2, oldest_use_ns=NOW - 4 * DAY)
