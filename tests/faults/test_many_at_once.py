"""Eight builds at once, as processes, on one cache, one state folder and one layout."""

from __future__ import annotations

import json

from build.small_image import write
from cli.commands import arguments, run, start

from sconify_cache.gc import collect, running, stats, verify
from sconify_cache.house import open_house
from sconify_tasks.image.validate import validate

BUILDS = 8


def finish(processes):
    ended = [(*process.communicate(), process.returncode) for process in processes]
    for _, said, code in ended:
        assert code == 0, said
    return ended


def is_valid(place) -> None:
    house = open_house(place.cache)
    found = verify(house.store, index=house.index, repair=False)
    assert (found.damaged, found.incomplete) == ((), 0)
    assert stats(house.store, index=house.index).unnamed == 0
    assert running(house.store_folder) == ()
    house.close()
    assert list((place.cache / "store" / "tmp").iterdir()) == []
    assert [path for path in place.layout.rglob(".sconify-*") if path.name != ".sconify.lock"] == []


def test_eight_builds_of_one_image_are_all_right_and_agree(native, place):
    ended = finish([start(place, arguments(native, place)) for _ in range(BUILDS)])
    assert len({stdout for stdout, _, _ in ended}) == 1
    is_valid(place)
    validate(place.layout, "small")
    clean = place.beside(place.folder.with_name("clean"))
    assert run(clean, arguments(native, clean)).code == 0
    assert clean.image_digest() == place.image_digest()


def test_eight_builds_of_eight_images_into_one_layout(native, place):
    assert run(place, arguments(native, place)).code == 0
    processes = []
    for number in range(BUILDS):
        write(native.with_name(f"native{number}") / "app" / "own", b"%d" % number)
        words = arguments(
            native, place, f"--to=oci:{place.layout}:image{number}", f"--env=NUMBER={number}", f"--name=image{number}"
        )
        processes.append(start(place, words))
    finish(processes)
    is_valid(place)
    index = json.loads((place.layout / "index.json").read_text())
    names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]}
    assert names == {"small", *(f"image{number}" for number in range(BUILDS))}
    for name in names:
        validate(place.layout, name)


def test_a_collection_beside_eight_builds_takes_nothing_from_them(native, place):
    processes = [start(place, arguments(native, place)) for _ in range(BUILDS)]
    house = open_house(place.cache)
    rounds = 0
    while any(process.poll() is None for process in processes):
        collect(house.store, folder=house.store_folder, now_ns=0, index=house.index, max_bytes=0)
        rounds += 1
    finish(processes)
    house.close()
    assert rounds > 1
    # Between two builds everything may go: then it is made again.
    assert run(place, arguments(native, place)).code == 0
    validate(place.layout, "small")
