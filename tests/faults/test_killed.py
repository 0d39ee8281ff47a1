"""kill -9 at any moment: the next build gives the right bytes, from a store that is valid, and removes what was left.

Moments are writes, drawn among all of them, and times. SCONIFY_TESTS_FAULTS says how many of each.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from build.small_image import SECRET
from cli.commands import arguments, start
from faults.failing import Fault, sample
from faults.test_failing_disk import POINTS, fresh, is_sound, writes

SEED = 20261124


def left_nothing_readable(place) -> None:
    """No plaintext of a protected file in whatever a killed run left."""
    for path in place.folder.rglob("*"):
        assert not path.is_file() or SECRET[:30] not in path.read_bytes(), path


@pytest.mark.parametrize("cpus", [1, 2])
def test_killed_at_a_write(zygote, image, good, tmp_path, cpus):
    calls = writes(zygote, image, good, tmp_path, kills=True)
    codes = Counter()
    for at in sample(POINTS // 2, len(calls), seed=SEED + cpus):
        place = fresh(good, tmp_path, at)
        ended = zygote.run(place, image, Fault(at=at, kills=True), cpus=cpus)
        codes[ended.code] += 1
        assert ended.code in (-signal.SIGKILL, 0), ended.stderr
        left_nothing_readable(place)
        is_sound(zygote, image, place, good)
        shutil.rmtree(place.folder)
    print(f"seed {SEED + cpus}: {len(calls)} writes, exit codes {dict(codes)}")  # noqa: T201
    assert codes[-signal.SIGKILL] > codes[0]


def test_killed_at_a_time(zygote, image, good, tmp_path):
    draw = random.Random(SEED)
    begun = time.monotonic()
    place = fresh(good, tmp_path, "timed")
    process = start(place, arguments(image, place))
    process.communicate()
    whole = time.monotonic() - begun
    killed = 0
    times = POINTS // 2
    for number in range(times):
        place = fresh(good, tmp_path, number)
        process = start(place, arguments(image, place))
        time.sleep(draw.uniform(0.2, 1) * whole)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert not children_in(place)
        left_nothing_readable(place)
        is_sound(zygote, image, place, good)
        shutil.rmtree(place.folder)
    print(f"seed {SEED}: {killed} of {times} killed within {whole:.1f} s")  # noqa: T201
    assert killed > 0


def test_killed_again_and_again_in_one_place(zygote, image, good, tmp_path):
    """Each run takes up what the killed one before it left."""
    calls = writes(zygote, image, good, tmp_path, kills=True)
    place = fresh(good, tmp_path, "again")
    draw = random.Random(SEED)
    for _ in range(POINTS):
        zygote.run(place, image, Fault(at=draw.randint(1, len(calls) // 2), kills=True), cpus=2)
        left_nothing_readable(place)
    is_sound(zygote, image, place, good)


def children_in(place) -> list[str]:
    """Processes that work in a place."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(place.folder):
                found.append(process.name)
    return found
