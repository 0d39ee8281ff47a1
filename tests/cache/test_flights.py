"""One run of an action at a time, among threads and among processes; and that a dead one holds nobody up."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.flights import Flights


def key(name):
    return Digest(blake3(name.encode()).hexdigest())


@pytest.fixture
def flights(tmp_path):
    made = Flights(tmp_path / "flights")
    yield made
    made.close()


def made_once(flights, folder, name):
    """What a step does: look, and make what is not there. Return whether it was made here."""
    with flights.alone(key(name)):
        if (folder / name).exists():
            return False
        time.sleep(0.02)
        (folder / name).touch(exist_ok=False)
        return True


def test_of_many_threads_one_makes_it_and_the_others_find_it(flights, tmp_path):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda number: made_once(flights, tmp_path, f"work-{number % 4}"), range(64)))
    assert sum(made) == 4
    assert flights._flying == {}


def test_different_actions_run_at_once(flights):
    both = threading.Barrier(2, timeout=20)

    def wait(name):
        with flights.alone(key(name)):
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(wait, ["one", "two"]))


def test_a_body_that_fails_lets_the_next_one_in(flights, tmp_path):
    with pytest.raises(RuntimeError), flights.alone(key("x")):
        raise RuntimeError
    assert made_once(flights, tmp_path, "x")
    with Flights(tmp_path / "flights", patience=0).alone(key("x")):
        pass


PROCESS = """
import sys, time
from pathlib import Path
from sconify_cache.digest import Digest
from sconify_cache.flights import Flights
folder, key, mode = Path(sys.argv[1]), Digest(sys.argv[2]), sys.argv[3]
with Flights(folder / "flights").alone(key):
    if mode == "hold":
        print("held", flush=True)
        time.sleep(600)
    made = not (folder / "made").exists()
    if made:
        time.sleep(0.1)
        (folder / "made").touch(exist_ok=False)
    print(made, flush=True)
"""


def process(folder, mode):
    return subprocess.Popen([sys.executable, "-c", PROCESS, folder, key("x"), mode], stdout=subprocess.PIPE, text=True)


def test_of_many_processes_one_makes_it_and_the_others_find_it(tmp_path):
    started = [process(tmp_path, "make") for _ in range(4)]
    said = [each.communicate(timeout=60)[0].strip() for each in started]
    assert sorted(said) == ["False", "False", "False", "True"]


def test_a_process_that_holds_it_too_long_or_dies_holds_nobody_up(tmp_path):
    holder = process(tmp_path, "hold")
    try:
        assert holder.stdout.readline() == "held\n"
        impatient = Flights(tmp_path / "flights", patience=0)
        taken = []
        take = impatient._take
        impatient._take = lambda each: taken.append(take(each)) or taken[-1]
        with impatient.alone(key("x")), impatient.alone(key("another")):
            assert taken == [False, True]
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=20)
        with impatient.alone(key("x")):
            assert taken == [False, True, True]
        impatient.close()
    finally:
        holder.kill()
        holder.communicate()


def test_where_a_file_can_not_be_locked_or_made_the_work_is_done_all_the_same(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for file in (tmp_path / "loop", tmp_path / "no" / "folder", tmp_path):
        assert made_once(Flights(file), tmp_path, f"work-{file.name}")


def test_nothing_is_made_before_the_first_action_and_one_empty_file_is_left(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    flights = Flights(folder / "flights")
    assert list(folder.iterdir()) == []
    for number in range(20):
        with flights.alone(key(str(number))):
            pass
    flights.close()
    (left,) = folder.iterdir()
    assert (left.stat().st_size, left.stat().st_mode & 0o777) == (0, 0o600)
