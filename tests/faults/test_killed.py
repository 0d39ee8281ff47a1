"""kill -9 at any moment: the next build gives the right bytes, from a store that is valid, and removes what was left.

Moments are writes, drawn among all of them, and times. SCONIFY_TESTS_FAULTS says how many of each. Of many images, which are
made in worker processes, the run is killed, or the one of its processes that writes.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

import pytest
from cli.commands import start
from faults.every_write import try_writes
from faults.failing import Fault, sample
from faults.scenarios import left_nothing_readable, nobody_works_in
from faults.test_failing_disk import POINTS

SEED = 20261124


@pytest.mark.parametrize("cpus", [1, 2])
def test_killed_at_a_write(one_image, cpus):
    calls = one_image.writes(signal=signal.SIGKILL)
    numbers = sample(POINTS // 2, len(calls), seed=SEED + cpus)
    codes = killed_at(one_image, calls, numbers, Fault(signal=signal.SIGKILL), cpus=cpus)
    assert codes[-signal.SIGKILL] > codes[0]


@pytest.mark.parametrize("to_writer", [False, True], ids=["the run", "who writes"])
def test_killed_at_a_write_of_a_worker(many, to_writer):
    calls = many.writes(signal=signal.SIGKILL)
    # Of all processes, each once; two may be noted in another order than they were counted in.
    assert sorted(int(line.split()[0]) for line in calls) == list(range(1, len(calls) + 1))
    numbers = sample(POINTS // 2, len(calls), seed=SEED + to_writer)
    codes = killed_at(many, calls, numbers, Fault(signal=signal.SIGKILL, to_writer=to_writer), cpus=2)
    assert codes[1 if to_writer else -signal.SIGKILL] > 0


def killed_at(scenario, calls, numbers, fault, *, cpus) -> Counter:
    tally = try_writes(scenario, calls, numbers, fault, cpus=cpus)
    print(f"{len(calls)} writes, tried {numbers}, exit codes {dict(tally.codes)}")  # noqa: T201
    assert not tally.wrong, "\n\n".join(tally.wrong)
    return tally.codes


@pytest.mark.parametrize("door", ["one_image", "many"])
def test_killed_at_a_time(request, door):
    scenario = request.getfixturevalue(door)
    draw = random.Random(SEED)
    begun = time.monotonic()
    with scenario.fresh("timed") as place:
        start(place, scenario.words(place)).communicate()
    whole = time.monotonic() - begun
    killed = 0
    times = POINTS // 2
    for number in range(times):
        with scenario.fresh(number) as place:
            process = start(place, scenario.words(place))
            time.sleep(draw.uniform(0.2, 1) * whole)
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            nobody_works_in(place)
            left_nothing_readable(place)
            scenario.is_sound(place)
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
