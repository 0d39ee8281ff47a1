"""A prune while a build runs leaves alone what the build relies on, and one before it only makes it run steps again."""

from __future__ import annotations

import time

from build.small_image import convert, write

from sconify_cache.gc import collect
from sconify_cache.local import LocalStore
from sconify_tasks.events import StepStarted


def everything_goes(place):
    """A prune that wants to delete every blob."""
    store = LocalStore(place.cache / "store")
    return collect(store, folder=place.cache / "store", now_ns=time.time_ns(), max_bytes=0)


def test_a_prune_at_every_step_of_a_running_build_takes_nothing_from_it(native, place):
    convert(native, place)
    digest = place.image_digest()
    write(native / "app" / "secret", b"changed")
    pruned = []

    def react(event) -> None:
        if isinstance(event, StepStarted):
            pruned.append(everything_goes(place).blobs)

    outcome = convert(native, place, react=react)
    assert outcome.code == 0
    # The first step starts under the lease already.
    assert set(pruned) == {0}
    assert place.image_digest() != digest


def test_a_prune_between_two_builds_costs_time_and_nothing_else(native, place):
    convert(native, place)
    digest = place.image_digest()
    assert everything_goes(place).blobs > 10
    outcome = convert(native, place)
    assert outcome.code == 0
    assert outcome.ran
    assert place.image_digest() == digest
    assert convert(native, place).started == []
