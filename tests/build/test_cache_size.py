"""SCONIFY_CACHE_SIZE: a build that wrote makes the cache small enough, once a day; one that had nothing to do looks at nothing."""

from __future__ import annotations

import pytest
from build.small_image import SECRET, Recorder, convert, order_for, snapshot, world_of, write

from sconify_dodo.front import build_all
from sconify_tasks.environment import read_environment
from sconify_tasks.errors import UsageError

LIMIT = 2_000_000


def total(place):
    return sum(path.stat().st_size for path in (place.cache / "store" / "blobs").rglob("*") if path.is_file())


def test_a_build_makes_the_cache_small_enough_and_the_next_one_is_right(native, place):
    assert convert(native, place).code == 0
    assert total(place) > LIMIT
    image = place.image_digest()
    write(native / "app" / "secret", b"new")
    assert convert(native, place, variables={"SCONIFY_CACHE_SIZE": str(LIMIT)}).code == 0
    assert total(place) <= LIMIT
    write(native / "app" / "secret", SECRET)
    assert convert(native, place, variables={"SCONIFY_CACHE_SIZE": str(LIMIT)}).code == 0
    assert place.image_digest() == image
    # That one was of the same day.
    assert (place.cache / "store" / "collected").exists()
    assert total(place) > LIMIT


def test_a_run_that_finds_nothing_to_do_collects_nothing(native, place):
    for _ in range(2):
        assert convert(native, place).code == 0
    before = snapshot(place.cache / "store")
    assert convert(native, place, variables={"SCONIFY_CACHE_SIZE": "0"}).ran == set()
    assert snapshot(place.cache / "store") == before


def test_a_collection_that_fails_is_a_warning(native, place, monkeypatch):
    from sconify_cache.errors import StoreError

    def fail(*_args, **_more):
        raise StoreError("no")

    monkeypatch.setattr("sconify_tasks.world.collect_daily", fail)
    recorder = Recorder()
    with world_of(place, recorder, SCONIFY_CACHE_SIZE="1G") as world:
        assert build_all(world, [order_for(native, place)], jobs=1, keep_going=False, debug=True).code == 0
    assert any("could not be made smaller" in str(event) for event in recorder.events)


@pytest.mark.parametrize("text", ["lots", "-1", "1.5G", "10GB", "20g"])
def test_what_is_no_size_is_a_usage_error(text):
    with pytest.raises(UsageError, match="SCONIFY_CACHE_SIZE"):
        read_environment({"SCONIFY_CACHE_SIZE": text})
