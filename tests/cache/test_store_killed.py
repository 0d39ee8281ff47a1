"""kill -9 at any moment, and several processes at once, leave a store that the next run uses without repair."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.gc import verify
from sconify_cache.local import LocalStore

# Blobs are made from numbers, so that every process knows what bytes belong to which.
WRITER = """
import sys
from pathlib import Path
from sconify_cache.local import LocalStore

folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = LocalStore(folder)
print("ready", flush=True)
for number in range(first, first + count):
    data = number.to_bytes(4, "big") * (1 + number % 7 * 20_000)
    match number % 3:
        case 0:
            store.put(data)
        case 1:
            with store.writer(private=number % 2 == 0) as blob:
                for start in range(0, len(data), 7001):
                    blob.write(data[start : start + 7001])
        case 2:
            with store.scratch() as scratch:
                (scratch / "file").write_bytes(data)
                store.adopt(scratch / "file")
print("done", flush=True)
"""


def blob(number: int) -> bytes:
    return number.to_bytes(4, "big") * (1 + number % 7 * 20_000)


def start(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "tmp").iterdir()) if (folder / "tmp").exists() else []


def test_killed_writers_leave_whole_blobs_and_scratch_that_the_next_run_removes(tmp_path):
    folder = tmp_path / "store"
    chance = random.Random(20250101)
    kills_with_scratch = 0
    for _ in range(30):
        process = start(folder, 0, 10**6)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        kills_with_scratch += bool(leftovers(folder))
        LocalStore(folder).sweep()
        assert leftovers(folder) == []
        found = verify(LocalStore(folder))
        assert found.damaged == ()
    assert kills_with_scratch > 0
    assert found.blobs > 0


def test_four_processes_write_the_same_blobs_at_once(tmp_path):
    folder = tmp_path / "store"
    processes = [start(folder, first, 120) for first in (0, 0, 60, 60)]
    for process in processes:
        assert process.communicate()[0] == "ready\ndone\n"
        assert process.returncode == 0
    store = LocalStore(folder)
    expected = {Digest(blake3(blob(number)).hexdigest()) for number in range(180)}
    assert {found.digest for found in store.iterate()} == expected
    assert verify(store).damaged == ()
    store.sweep()
    assert leftovers(folder) == []


def test_the_scratch_of_a_process_that_lives_is_left_alone(tmp_path):
    folder = tmp_path / "store"
    mine, other = LocalStore(folder), LocalStore(folder)
    with mine.scratch() as scratch, mine.writer() as writing:
        (scratch / "file").write_bytes(b"half")
        writing.write(b"whole")
        other.sweep()
        other.put(b"starts another scratch")
        assert (scratch / "file").exists()
    assert other.get(writing.digest) == b"whole"
