"""kill -9 at any moment: the next build gives the right bytes, from a store that is valid, and removes what was left.

Moments are writes, drawn among all of them, and times. SCONIFY_TESTS_FAULTS says how many of each.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from cli.commands import start
from faults.failing import Fault, sample
from faults.scenarios import left_nothing_readable
from faults.test_failing_disk import POINTS

SEED = 20261124


@pytest.mark.parametrize("cpus", [1, 2])
def test_killed_at_a_write(one_image, cpus):
    calls = one_image.writes(signal=signal.SIGKILL)
    codes = Counter()
    for at in sample(POINTS // 2, len(calls), seed=SEED + cpus):
        with one_image.fresh(at) as place:
            ended = one_image.run(place, Fault(at=at, signal=signal.SIGKILL), cpus=cpus)
            codes[ended.code] += 1
            assert ended.code in (-signal.SIGKILL, 0), ended.stderr
            left_nothing_readable(place)
            one_image.is_sound(place)
    print(f"seed {SEED + cpus}: {len(calls)} writes, exit codes {dict(codes)}")  # noqa: T201
    assert codes[-signal.SIGKILL] > codes[0]


def test_killed_at_a_time(one_image):
    draw = random.Random(SEED)
    begun = time.monotonic()
    with one_image.fresh("timed") as place:
        start(place, one_image.words(place)).communicate()
    whole = time.monotonic() - begun
    killed = 0
    times = POINTS // 2
    for number in range(times):
        with one_image.fresh(number) as place:
            process = start(place, one_image.words(place))
            time.sleep(draw.uniform(0.2, 1) * whole)
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            assert not children_in(place)
            left_nothing_readable(place)
            one_image.is_sound(place)
    print(f"seed {SEED}: {killed} of {times} killed within {whole:.1f} s")  # noqa: T201
    assert killed > 0


def test_killed_again_and_again_in_one_place(one_image):
    """Each run takes up what the killed one before it left."""
    calls = one_image.writes(signal=signal.SIGKILL)
    draw = random.Random(SEED)
    with one_image.fresh("again") as place:
        for _ in range(POINTS):
            one_image.run(place, Fault(at=draw.randint(1, len(calls) // 2), signal=signal.SIGKILL), cpus=2)
            left_nothing_readable(place)
        one_image.is_sound(place)


def children_in(place) -> list[str]:
    """Processes that work in a place."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(place.folder):
                found.append(process.name)
    return found
