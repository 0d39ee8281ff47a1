"""One native image that feeds several outputs: what they have in common is done once, also at the same time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from build.small_image import Place, Recorder, options_for, world_of

from sconify_dodo.front import Order, build_all
from sconify_tasks.events import StepFinished
from sconify_tasks.image.rootfs import RootfsSource

COMMON = {"inspect", "binary", "files", "libraries", "cas", "sign", "copy", "sconify"}
OWN = {"encrypt", "manifest", "image", "verify", "policy", "deliver", "resources", "upload"}


def orders(native, place, count=4):
    return [
        Order(
            name=f"image-{number}",
            options=options_for(native, place, to=f"oci:{place.folder}/out-{number}:1"),
            resources=place.resources / str(number),
        )
        for number in range(count)
    ]


def ran(recorder: Recorder) -> Counter[str]:
    return Counter(event.step for event in recorder.events if isinstance(event, StepFinished) and not event.cached)


@pytest.mark.parametrize("jobs", [1, 4])
def test_steps_with_equal_keys_run_once_and_the_native_image_is_opened_once(native, place, jobs, monkeypatch):
    opened = []
    open_ = RootfsSource.__init__
    monkeypatch.setattr(RootfsSource, "__init__", lambda self, *given, **more: opened.append(1) or open_(self, *given, **more))
    recorder = Recorder()
    with world_of(place, recorder) as world:
        assert build_all(world, orders(native, place), jobs=jobs, keep_going=False, debug=True).code == 0
    assert ran(recorder) == Counter(dict.fromkeys(COMMON, 1) | dict.fromkeys(OWN, 4))
    assert len(opened) == 1


def test_builds_at_the_same_time_on_one_cache_share_their_work(native, place):
    """Each has a world of its own, as each process has: what they share lies on the disk."""
    recorder = Recorder()
    with world_of(place, recorder) as world:  # makes the CAS and the identity, which are inputs
        assert build_all(world, orders(native, place, 1), jobs=1, keep_going=False, debug=True).code == 0
    for file in native.rglob("secret"):
        file.write_bytes(b"something else\n")

    def build(order: Order) -> Recorder:
        recorder = Recorder()
        with world_of(Place(folder=place.folder), recorder) as world:
            assert build_all(world, [order], jobs=1, keep_going=False, debug=True).code == 0
        return recorder

    with ThreadPoolExecutor(4) as pool:
        total = sum((ran(each) for each in pool.map(build, orders(native, place))), Counter())
    assert {step: total[step] for step in COMMON & total.keys()} == dict.fromkeys(COMMON & total.keys(), 1)
    assert total["files"] == 1
    assert total["deliver"] == 4
