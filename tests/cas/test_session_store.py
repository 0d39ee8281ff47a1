"""The store: nothing readable outside, nothing lost, nothing foreign taken."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from sconify_tasks.cas.store import SessionStore
from sconify_tasks.errors import StoreError

KEY = b"\x07" * 32


@pytest.fixture
def store(tmp_path):
    return SessionStore(path=tmp_path / "state" / "sessions.sqlite", key=KEY)


def add(store, name="a", digest="11" * 32, text="secret text", creator="cc" * 32):
    with store.writing() as sessions:
        return sessions.append(name=name, digest=digest, creator=creator, text=text)


def test_the_newest_version_is_served_and_old_ones_are_kept(store):
    add(store, digest="11" * 32, text="first")
    add(store, digest="22" * 32, text="second", creator="dd" * 32)
    newest = store.newest("a")
    assert (newest.text, newest.number, newest.predecessor, newest.creator) == ("second", 2, "11" * 32, "cc" * 32)
    assert store.version("a", "11" * 32).text == "first"
    assert store.newest("b") is None
    assert store.version("a", "33" * 32) is None


def test_what_raises_is_undone(store):
    def fail():
        with store.writing() as sessions:
            sessions.append(name="a", digest="11" * 32, creator="cc" * 32, text="text")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.newest("a") is None


def test_no_text_is_readable_in_any_file_and_no_file_by_others(store):
    add(store, text="fspf_key: 0123456789abcdef")
    with store.writing() as sessions:  # while -wal and -shm exist
        sessions.append(name="b", digest="11" * 32, creator="cc" * 32, text="fspf_key: 0123456789abcdef")
        for path in store.path.parent.iterdir():
            assert b"0123456789abcdef" not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0


def test_another_key_opens_nothing(store):
    add(store)
    with pytest.raises(StoreError, match="sealed with another key"):
        SessionStore(path=store.path, key=b"\x08" * 32).newest("a")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE versions SET creator = '" + "ee" * 32 + "'",
        "UPDATE versions SET hash = '" + "ee" * 32 + "'",
        "UPDATE versions SET predecessor = '" + "ee" * 32 + "'",
        "UPDATE versions SET number = 9",
        "UPDATE versions SET sealed = zeroblob(40)",
        "UPDATE versions SET sealed = zeroblob(0)",
        "UPDATE versions SET name = 'b'",
    ],
)
def test_a_changed_row_is_refused(store, change):
    add(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute(change)
    with pytest.raises(StoreError, match="was changed"):
        store.newest("b" if "name" in change else "a")


def test_rows_exchanged_between_two_sessions_are_refused(store):
    add(store, name="a", text="of a")
    add(store, name="b", text="of b")
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE versions SET sealed = (SELECT sealed FROM versions WHERE name = 'b') WHERE name = 'a'")
    with pytest.raises(StoreError, match="was changed"):
        store.newest("a")


def test_another_programs_database_is_left_alone(store):
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = store.path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        add(store)
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    assert len(before) == store.path.stat().st_size


@pytest.mark.parametrize(("pragma", "why"), [("user_version = 9", "schema 9"), ("application_id = 7", "another program")])
def test_a_database_of_another_kind_or_version_is_refused(store, pragma, why):
    add(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(StoreError, match=why):
        store.newest("a")


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_named(store, content):
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    with pytest.raises(StoreError, match=r"sessions\.sqlite"):
        store.newest("a")


def test_a_file_with_damaged_pages_is_named(store):
    with store.writing() as sessions:
        for number in range(200):
            sessions.append(name=f"s{number}", digest="11" * 32, creator="cc" * 32, text="x" * 1000)
    raw = bytearray(store.path.read_bytes())
    raw[4096:] = b"\x55" * (len(raw) - 4096)
    store.path.write_bytes(bytes(raw))
    with pytest.raises(StoreError, match=r"sessions\.sqlite"):
        store.newest("s7")


def test_of_many_writers_none_loses_anything(store):
    def write(number):
        return add(store, digest=f"{number:064x}", text=str(number)).number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(write, range(40)))
    assert sorted(numbers) == list(range(1, 41))


@pytest.fixture
def keeping(store):
    kept = SessionStore(path=store.path, key=KEY, keep=True)
    yield kept
    kept.close()


def test_a_build_s_operations_share_one_connection(store, keeping, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: opened.append(given) or connect(*given, **named))
    for number in range(5):
        add(keeping, name=f"n{number}")
        assert keeping.newest(f"n{number}").text == "secret text"
    assert len(opened) == 1
    keeping.close()
    assert [path.name for path in store.path.parent.iterdir()] == ["sessions.sqlite"]
    assert keeping.newest("n4").text == "secret text"


def test_a_database_that_went_away_is_not_written_to(store, keeping):
    add(keeping)
    for path in store.path.parent.iterdir():
        path.unlink()
    assert keeping.newest("a") is None
    add(keeping, text="again")
    assert store.newest("a").text == "again"


def test_a_thread_that_connects_leaves_the_locks_of_the_others(store):
    """POSIX: closing any descriptor of a file drops every lock that the process has on it.

    Another process would then take itself for the last one, and remove the log that a thread here writes to.
    """
    add(store)
    with store.writing() as sessions, ThreadPoolExecutor(1) as threads:
        sessions.append(name="b", digest="11" * 32, creator="cc" * 32, text="text")
        assert threads.submit(store.newest, "a").result().text == "secret text"  # a second connection
        other = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM versions').fetchall(); c.close()"
        )
        subprocess.run([sys.executable, "-c", other, store.path], check=True)
        assert store.path.with_name("sessions.sqlite-wal").exists()
    assert store.newest("b").text == "text"


def test_many_that_are_first_at_once_all_get_in(tmp_path):
    """SQLite does not wait for the lock that a change of the journal's mode takes."""
    for number in range(100):
        store = SessionStore(path=tmp_path / str(number) / "sessions.sqlite", key=KEY, keep=True)
        together = Barrier(4)

        def first(name, store=store, together=together):
            together.wait()
            assert store.newest(name) is None
            add(store, name=name)

        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(first, "abcd")] == [None] * 4
        assert [store.newest(name).number for name in "abcd"] == [1, 1, 1, 1]
        store.close()
