"""The action cache believes only its project's records, loses none, and never runs what somebody planted."""

import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest
from blake3 import blake3

from sconify_cache import index
from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.record import Record, seal_record

KEY = bytes(range(32))


def name(number: int) -> Digest:
    return Digest(blake3(b"%d" % number).hexdigest())


def record(number: int, **more) -> Record:
    return Record(key=name(number), step="encrypt", outputs={"layer": name(number + 1000)}, facts={"n": number}, **more)


@pytest.fixture
def cache(tmp_path):
    cache = ActionCache(tmp_path / "actions", mac_key=KEY)
    yield cache
    cache.close()


def planted(tmp_path, statement, *values):
    with sqlite3.connect(tmp_path / "actions" / "cache.db") as database:
        database.execute(statement, values)
    database.close()


def test_nothing_is_made_by_asking(cache, tmp_path):
    assert cache.lookup(name(1)) is None
    assert cache.latest("app", "encrypt") is None
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_found_again_by_another_process_and_after_a_change(cache, tmp_path):
    cache.record(record(1))
    assert cache.lookup(name(1)) == record(1)
    cache.record(record(1, secret=True))
    assert ActionCache(tmp_path / "actions", mac_key=KEY).lookup(name(1)) == record(1, secret=True)


def test_the_folder_is_its_owners_alone(cache, tmp_path):
    cache.record(record(1))
    assert stat.S_IMODE((tmp_path / "actions").stat().st_mode) == 0o700


def test_large_records_are_kept_in_the_row(cache, tmp_path):
    big = Record(key=name(1), step="inspect", facts={"text": "x" * 300_000})
    cache.record(big)
    assert cache.lookup(name(1)) == big
    cache.close()
    assert [path.name for path in (tmp_path / "actions").iterdir()] == ["cache.db"]


def test_looking_up_writes_nothing(cache, tmp_path):
    cache.record(record(1))
    cache.remember("app", record(1))
    cache.close()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "actions").iterdir()}
    again = ActionCache(tmp_path / "actions", mac_key=KEY)
    assert again.lookup(name(1)) == record(1)
    again.remember("app", record(1))
    assert again.latest("app", "encrypt") == record(1)
    again.close()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "actions").iterdir()} == before


def test_looking_up_does_not_load_diskcache(cache, tmp_path):
    cache.record(record(1))
    code = "import sys; from pathlib import Path; from sconify_cache.actions import ActionCache; from sconify_cache.digest import Digest\n"
    code += (
        f"assert ActionCache(Path({str(tmp_path / 'actions')!r}), mac_key=bytes(range(32))).lookup(Digest({str(name(1))!r}))\n"
    )
    code += "assert 'diskcache' not in sys.modules"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


class Bomb:
    """A pickle of this touches a file when it is loaded."""

    def __init__(self, fuse):
        self.fuse = fuse

    def __reduce__(self):
        return os.mkdir, (self.fuse,)


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("where", ["row", "file"])
def test_a_planted_pickle_is_a_miss_and_does_not_run(cache, tmp_path, mode, where):
    cache.record(record(1))
    payload = pickle.dumps(Bomb(str(tmp_path / "pwned")))
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Bomb(str(tmp_path))))  # the bomb works
    (tmp_path / "actions" / "bomb.val").write_bytes(payload)
    row = (mode, None, payload) if where == "row" else (mode, "bomb.val", None)
    planted(tmp_path, "UPDATE Cache SET mode = ?, filename = ?, value = ? WHERE key = '" + name(1) + "'", *row)
    assert cache.lookup(name(1)) is None
    with pytest.raises(ValueError, match="only text"):
        cache._index._opened().get(name(1))
    cache.record(record(1))
    assert cache.lookup(name(1)) == record(1)
    assert not (tmp_path / "pwned").exists()


def test_a_planted_pickled_key_is_never_loaded(cache, tmp_path):
    cache.record(record(1))
    payload = pickle.dumps(Bomb(str(tmp_path / "pwned")))
    planted(tmp_path, "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 1, 'x')", payload)
    assert [found.key for found in cache.records()] == [name(1)]
    with pytest.raises(ValueError, match="only text"):
        list(cache._index._opened().iterkeys())
    assert not (tmp_path / "pwned").exists()


def test_a_planted_file_name_deletes_nothing(cache, tmp_path):
    cache.record(record(1))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted(tmp_path, "UPDATE Cache SET filename = '../victim'")
    assert cache.lookup(name(1)) is None
    cache.record(record(1))
    assert victim.read_text() == "precious"
    assert cache.lookup(name(1)) == record(1)


@pytest.mark.parametrize(
    "value", [None, 7, 1.5, b"\x80\x04N.", "", "{}", "null", seal_record(record(1), bytes(32)), seal_record(record(2), KEY)]
)
def test_a_malformed_foreign_or_moved_row_is_a_miss(cache, tmp_path, value):
    cache.record(record(1))
    planted(tmp_path, "UPDATE Cache SET value = ?", value)
    assert cache.lookup(name(1)) is None
    assert list(cache.records()) == []


def test_the_last_record_of_each_scope_and_step_is_remembered(cache):
    first, second = record(1), record(2)
    cache.record(first)
    cache.record(second)
    cache.remember("app", first)
    cache.remember("other", first)
    cache.remember("app", second)
    assert cache.latest("app", "encrypt") == second
    assert cache.latest("other", "encrypt") == first
    assert cache.latest("app", "sign") is None


def test_a_pointer_that_was_moved_to_another_scope_is_nothing(cache, tmp_path):
    cache.record(record(1))
    cache.remember("app", record(1))
    planted(tmp_path, """UPDATE Cache SET key = 'latest:["other","encrypt"]' WHERE key LIKE 'latest:%'""")
    assert cache.latest("other", "encrypt") is None


def test_many_records_are_listed_in_batches(cache, monkeypatch):
    monkeypatch.setattr(index, "_BATCH", 3)
    for number in range(10):
        cache.record(record(number))
    assert {found.facts["n"] for found in cache.records()} == set(range(10))


def test_a_file_that_is_no_database_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "actions").mkdir(mode=0o700)
    (tmp_path / "actions" / "cache.db").write_bytes(b"rubbish " * 1000)
    cache = ActionCache(tmp_path / "actions", mac_key=KEY)
    for attempt in (lambda: cache.lookup(name(1)), lambda: cache.record(record(1))):
        with pytest.raises(StoreError, match=r"cache\.db: file is not a database") as caught:
            attempt()
        assert "delete it" in caught.value.hint


def test_records_on_a_read_only_disk_are_found_and_new_ones_refused(small_disk):
    cache = ActionCache(small_disk / "actions", mac_key=KEY)
    cache.record(record(1))
    cache.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert cache.lookup(name(1)) == record(1)
    with pytest.raises(StoreError, match=r"cache\.db"):
        cache.record(record(2))
    cache.close()


def test_a_full_disk_loses_the_record_and_says_so(small_disk):
    cache = ActionCache(small_disk / "actions", mac_key=KEY)
    cache.record(record(1))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        cache.record(Record(key=name(2), step="inspect", facts={"text": "x" * (2 << 20)}))
    assert "free some space" in caught.value.hint
    assert cache.lookup(name(1)) == record(1)
    assert cache.lookup(name(2)) is None
    cache.close()


def test_a_folder_with_a_dollar_is_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path / "elsewhere"))
    cache = ActionCache(tmp_path / "$PLACE", mac_key=KEY)
    with pytest.raises(StoreError, match="has a \\$ in its name"):
        cache.record(record(1))


def test_threads_record_and_look_up_at_once(cache):
    faults = []

    def work(first):
        try:
            for number in range(first, first + 40):
                cache.record(record(number))
                assert cache.lookup(name(number)) == record(number)
        except BaseException as error:  # noqa: BLE001 - reported below, in the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 20, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(list(cache.records())) == 100


RECORDER = """
import sys
from pathlib import Path
from blake3 import blake3
from sconify_cache import index
from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.record import Record

cache = ActionCache(Path(sys.argv[1]), mac_key=bytes(range(32)))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    key = Digest(blake3(b"%d" % number).hexdigest())
    cache.record(Record(key=key, step="encrypt", facts={"n": number}))
    print(number, flush=True)
"""


def recorder(folder, first, last):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", RECORDER, folder, str(first), str(last)], stdout=subprocess.PIPE, text=True, env=env
    )


def test_processes_that_start_at_once_on_no_folder_lose_nothing(tmp_path):
    processes = [recorder(tmp_path / "actions", first, first + 50) for first in (0, 50, 100, 150)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    cache = ActionCache(tmp_path / "actions", mac_key=KEY)
    assert {found.facts["n"] for found in cache.records()} == set(range(200))


def test_every_record_that_returned_survives_kill_9(tmp_path):
    survived = 0
    for round_ in range(6):
        process = recorder(tmp_path / "actions", round_ * 100_000, 10**6)
        process.stdout.readline()
        time.sleep(0.01 * round_)
        process.kill()
        lines = process.communicate()[0].splitlines()
        cache = ActionCache(tmp_path / "actions", mac_key=KEY)
        for line in lines:
            assert cache.lookup(name(int(line))) is not None
        survived += len(lines)
        cache.close()
    assert survived > 0


def test_a_write_that_can_not_begin_ends_with_the_reason_rather_than_never(tmp_path):
    texts = index.Index(tmp_path / "actions")
    texts.write({"first": "text"})
    log = tmp_path / "actions" / "cache.db-wal"
    log.unlink()
    log.mkdir()
    ended = []

    def write() -> None:
        with pytest.raises(StoreError, match="unable to open database file"):
            texts.write({"second": "text"})
        ended.append(True)

    # Another thread has a connection of its own, which is yet to open the log.
    waiting = threading.Thread(target=write, daemon=True)
    waiting.start()
    waiting.join(30)
    assert ended == [True]
    log.rmdir()


def test_a_write_waits_for_another_programs_lock(tmp_path):
    texts = index.Index(tmp_path / "actions")
    texts.write({"first": "text"})
    other = sqlite3.connect(texts.file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, other.execute, ["COMMIT"]).start()
    texts.write({"second": "text"})
    assert texts.read("second") == "text"
    other.close()
