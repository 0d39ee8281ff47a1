"""The stat cache believes an id only while the file can't have changed unseen."""

import os
import sqlite3

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.stat import StatCache

GENERATION = Digest("11" * 32)
SECOND = 10**9
NOW = 1_700_000_000 * SECOND
ID = Digest(blake3(b"content").hexdigest())


def stat_of(**changes):
    facts = {"ino": 5, "dev": 7, "size": 9, "mtime": NOW - 100 * SECOND, "ctime": NOW - 90 * SECOND} | changes
    times = (0, facts["mtime"] // SECOND, facts["ctime"] // SECOND)
    fields = {"st_mtime_ns": facts["mtime"], "st_ctime_ns": facts["ctime"], "st_atime_ns": 0}
    return os.stat_result((0o100644, facts["ino"], facts["dev"], 1, 0, 0, facts["size"], *times), fields)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "stat.db"


def opened(file, *, now=NOW, **more):
    return StatCache(file, generation=GENERATION, now=lambda: now, **more)


def saved(file, entries, **more):
    cache = opened(file, **more)
    for path, found in entries.items():
        cache.remember(path, found, ID)
    cache.save()


def test_an_unchanged_file_is_known_in_this_run_and_the_next(file):
    cache = opened(file)
    assert cache.lookup(b"/a", stat_of()) is None
    cache.remember(b"/a", stat_of(), ID)
    assert cache.lookup(b"/a", stat_of()) == ID
    cache.save()
    assert opened(file).lookup(b"/a", stat_of()) == ID


@pytest.mark.parametrize(
    "change", [{"ino": 6}, {"dev": 8}, {"size": 10}, {"mtime": NOW - 99 * SECOND}, {"ctime": NOW - 89 * SECOND}]
)
def test_a_change_of_any_part_of_the_stat_is_a_miss(file, change):
    saved(file, {b"/a": stat_of()})
    assert opened(file).lookup(b"/a", stat_of(**change)) is None


@pytest.mark.parametrize("field", ["mtime", "ctime"])
@pytest.mark.parametrize("when", [NOW - 2 * SECOND, NOW, NOW + 5 * SECOND, NOW + 10**6 * SECOND])
def test_a_racily_clean_file_is_hashed_again(file, field, when):
    found = stat_of(**{field: when})
    saved(file, {b"/a": found, b"/settled": stat_of()})
    again = opened(file, now=NOW + 60 * SECOND)
    assert again.lookup(b"/a", found) is None
    assert again.lookup(b"/settled", stat_of()) == ID


def test_a_real_file_rewritten_in_the_same_tick_with_its_mtime_set_back_is_seen(tmp_path, file):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    cache = StatCache(file, generation=GENERATION)
    found = path.stat()
    cache.remember(b"/file", found, ID)
    path.write_bytes(b"new")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    cache.save()
    assert StatCache(file, generation=GENERATION).lookup(b"/file", path.stat()) is None


def test_ids_of_another_generation_are_not_seen(file):
    saved(file, {b"/a": stat_of()})
    assert StatCache(file, generation=Digest("22" * 32), now=lambda: NOW).lookup(b"/a", stat_of()) is None


def test_only_the_roots_asked_for_are_loaded_and_forgotten(file):
    paths = [b"/app/x", b"/app/y", b"/app", b"/app2/x", b"/app-1", b"/lib/x", b"/app/\xff\xfe"]
    saved(file, dict.fromkeys(paths, stat_of()))
    cache = opened(file, roots=[b"/app"])
    assert {path for path in paths if cache.lookup(path, stat_of())} == {b"/app/x", b"/app/y", b"/app/\xff\xfe"}
    cache = opened(file, roots=[b"/app"])
    assert cache.lookup(b"/app/x", stat_of()) == ID
    cache.save(complete=True)
    everything = opened(file)
    assert {path for path in paths if everything.lookup(path, stat_of())} == {
        b"/app/x",
        b"/app",
        b"/app2/x",
        b"/app-1",
        b"/lib/x",
    }


def test_a_run_with_no_news_writes_nothing(file):
    saved(file, {b"/a": stat_of()})
    before = (file.stat().st_mtime_ns, file.stat().st_ctime_ns, sorted(file.parent.iterdir()))
    cache = opened(file)
    assert cache.lookup(b"/a", stat_of()) == ID
    cache.remember(b"/a", stat_of(), ID)
    cache.save(complete=True)
    assert (file.stat().st_mtime_ns, file.stat().st_ctime_ns, sorted(file.parent.iterdir())) == before


def test_nothing_known_and_nothing_learned_makes_no_file(file):
    opened(file).save(complete=True)
    assert not file.parent.exists()


@pytest.mark.parametrize("rubbish", [b"", b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_started_anew(file, rubbish):
    file.parent.mkdir()
    file.write_bytes(rubbish)
    saved(file, {b"/a": stat_of()})
    assert opened(file).lookup(b"/a", stat_of()) == ID


def test_a_file_of_another_version_is_started_anew(file):
    saved(file, {b"/a": stat_of()})
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    assert opened(file).lookup(b"/a", stat_of()) is None
    saved(file, {b"/b": stat_of()})
    assert opened(file).lookup(b"/b", stat_of()) == ID


def test_rows_of_another_shape_are_not_believed(file):
    saved(file, {b"/a": stat_of(), b"/b": stat_of()})
    with sqlite3.connect(file) as database:
        database.execute("UPDATE entries SET entry = x'00' WHERE path = ?", (b"/a",))
        database.execute("UPDATE entries SET entry = 'text' WHERE path = ?", (b"/b",))
    cache = opened(file)
    assert cache.lookup(b"/a", stat_of()) is None
    assert cache.lookup(b"/b", stat_of()) is None


def test_a_file_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "stat.db").mkdir()
    with pytest.raises(StoreError, match=r"stat\.db"):
        saved(tmp_path / "stat.db", {b"/a": stat_of()})


U64 = st.integers(0, 2**64 - 1)
TIME = st.integers(-(2**62), NOW - 4 * SECOND)


@settings(deadline=None)
@given(U64, U64, st.integers(0, 2**63 - 1), TIME, TIME)
def test_any_stat_that_a_file_system_can_give_is_kept(ino, dev, size, mtime, ctime):
    cache = opened_in_memory()
    found = stat_of(ino=ino, dev=dev, size=size, mtime=mtime, ctime=ctime)
    cache.remember(b"/a", found, ID)
    assert cache.lookup(b"/a", found) == ID


def opened_in_memory():
    from pathlib import Path

    return opened(Path("/nonexistent/stat.db"))
