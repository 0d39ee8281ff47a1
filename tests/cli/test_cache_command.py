"""`sconify-cache` and `doit cache`: figures that are so, damage that is found, and a cache that gets smaller and still works."""

from __future__ import annotations

import json
import os
import time

import pytest
from build.small_image import snapshot
from cli.commands import arguments, run

from sconify_cache import gc
from sconify_cache.local import LocalStore

DAY = 24 * 3600


@pytest.fixture
def built(native, place):
    assert run(place, arguments(native, place)).code == 0
    return place


def files(place):
    return [path for path in (place.cache / "store" / "blobs").rglob("*") if path.is_file()]


def aged(place, days):
    for path in files(place):
        found = path.stat()
        os.utime(path, (time.time() - days * DAY, found.st_mtime))


def asked(place, *words, command=("sconify-cache",)):
    ended = run(place, [*command, *words, "--json"])
    return ended.code, json.loads(ended.stdout), ended.stderr


@pytest.mark.parametrize("command", [("sconify-cache",), ("doit", "cache")], ids=" ".join)
def test_stats_are_what_lies_there(built, command):
    code, found, _ = asked(built, "stats", command=command)
    assert code == 0
    assert (found["blobs"], found["bytes"]) == (len(files(built)), sum(path.stat().st_size for path in files(built)))
    assert found["private"] == sum(not path.stat().st_mode & 4 for path in files(built)) > 0
    assert found["unnamed"] == found["running"] == 0
    assert found["folder"] == str(built.cache)
    assert found["accelerators"]["doit.db"] > 0


@pytest.mark.parametrize("command", [("sconify-cache",), ("doit", "cache")], ids=" ".join)
def test_the_text_says_the_same(built, command):
    ended = run(built, [*command, "stats"])
    assert f"blobs     {len(files(built))} (" in ended.stdout
    assert run(built, [*command, "path"]).stdout == f"{built.cache}\n"


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(place):
    place.home.mkdir()
    for words in (["stats"], ["verify"], ["gc", "--max-size=0"], ["path"]):
        assert asked(place, *words)[0] == 0
    assert not place.cache.exists()


def test_asking_writes_nothing(built):
    before = snapshot(built.cache)
    for words in (["stats"], ["verify"], ["gc", "--max-size=0", "--max-age=1h", "--dry-run"]):
        assert asked(built, *words)[0] == 0
    assert snapshot(built.cache).keys() == before.keys()


def test_damage_is_found_and_repaired_and_the_next_build_is_right(native, built):
    image = built.image_digest()
    victim = max(files(built), key=lambda path: path.stat().st_size)
    victim.chmod(0o600)
    victim.write_bytes(b"damage")
    code, found, said = asked(built, "verify")
    assert code == 4
    assert found["damaged"] == [victim.parent.name + victim.name]
    assert said.startswith("Error: the cache is damaged (--repair")
    code, found, _ = asked(built, "verify", "--repair")
    assert (code, len(found["damaged"])) == (0, 1)
    assert found["incomplete"] >= 1
    code, found, _ = asked(built, "verify")
    assert (code, found["damaged"], found["incomplete"]) == (0, [], 0)
    assert run(built, arguments(native, built)).code == 0
    assert built.image_digest() == image


def test_a_collection_by_age_leaves_what_is_young_and_the_next_build_is_right(native, built):
    image = built.image_digest()
    assert asked(built, "gc", "--max-age=30d")[1]["blobs"] == 0
    aged(built, 31)
    said = asked(built, "gc", "--max-age=30d", "--dry-run")[1]
    done = asked(built, "gc", "--max-age=30d")[1]
    assert {**said, "dry_run": False} == done
    assert done["blobs"] > 0
    assert files(built) == []
    stats = asked(built, "stats")[1]
    assert stats["blobs"] == 0
    assert run(built, arguments(native, built)).code == 0
    assert built.image_digest() == image


def test_a_collection_by_size_keeps_what_was_used_last(native, built):
    total = sum(path.stat().st_size for path in files(built))
    done = asked(built, "gc", f"--max-size={total // 2}")[1]
    assert 0 < done["kept_bytes"] <= total // 2
    assert sum(path.stat().st_size for path in files(built)) == done["kept_bytes"]
    assert asked(built, "verify")[1]["incomplete"] == 0
    assert run(built, arguments(native, built)).code == 0


def test_a_build_that_runs_keeps_what_it_found(built):
    with gc.building(built.cache / "store"):
        done = asked(built, "gc", "--max-size=0")[1]
    assert (done["blobs"], done["spared"]) == (0, len(files(built)))
    assert "because a build is running" not in run(built, ["sconify-cache", "gc"]).stdout


def test_what_killed_runs_left_goes(built):
    store = LocalStore(built.cache / "store")
    orphan = store.path(store.put(b"a killed build's, never recorded"))
    os.utime(orphan, (time.time() - 2 * DAY, 0))
    left = built.cache / "store" / "tmp"
    (left / "123-dead.lease").touch(mode=0o600)
    (left / "123-dead").mkdir()
    (left / "123-dead" / "half").write_bytes(b"half")
    assert asked(built, "stats")[1]["unnamed"] == 1
    assert asked(built, "gc")[1]["blobs"] == 1
    assert not orphan.exists()
    assert not (left / "123-dead").exists()


def test_stats_of_files_that_are_gone_are_forgotten(native, built):
    os.utime(native / "app" / "secret", (1_600_000_000, 1_600_000_000))
    time.sleep(3.1)  # younger files are racily clean, and never remembered
    assert run(built, arguments(native, built)).code == 0
    (native / "app" / "sub" / "other").unlink()
    found = asked(built, "gc")[1]
    assert found["forgotten"] == 1
    assert asked(built, "gc")[1]["forgotten"] == 0


@pytest.mark.parametrize(
    "words",
    [[], ["prune"], ["gc", "--max-size=lots"], ["gc", "--max-age=30"], ["stats", "--max-size=1"], ["verify", "x"]],
    ids=" ".join,
)
@pytest.mark.parametrize("command", [("sconify-cache",), ("doit", "cache")], ids=" ".join)
def test_wrong_words_are_one_clear_error_and_exit_code_2(place, command, words):
    place.home.mkdir()
    ended = run(place, [*command, *words])
    assert ended.code == 2
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_run_that_finds_nothing_to_do_writes_nothing_into_the_cache(native, built):
    time.sleep(3.1)  # what was just written is looked at once more
    assert run(built, arguments(native, built)).code == 0
    before = snapshot(built.cache)
    assert run(built, arguments(native, built)).code == 0
    assert snapshot(built.cache) == before
