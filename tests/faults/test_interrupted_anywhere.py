"""Ctrl-C and SIGTERM at any moment, however many workers there are: 130 for the first, one line, no orphans, and the next
build is right.

Moments are writes, drawn among all of them, and times. SCONIFY_TESTS_FAULTS says how many of each.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter

import pytest
from cli.commands import start
from faults.failing import Fault, sample
from faults.scenarios import left_nothing_readable, many_words, nobody_works_in, project_words, scenario
from faults.test_failing_disk import POINTS

SEED = 20261125
INTERRUPTED = "Error: interrupted (finished steps are kept: run it again to go on)"
# All that a run says that is not an error: steps, what they came to, and the summary's two lines.
DOCUMENTED = re.compile(
    r"(small|image-\d): ([a-z-]+( done.*)?|delivered sha256:[0-9a-f]{64} as (small|1)|base image .*)"
    r"|\d+ steps? ran, .*|critical path .*|" + re.escape(INTERRUPTED)
)


def ended_as_documented(number: int, code: int, stdout: str, stderr: str) -> None:
    """It may have come when everything was done."""
    undocumented = [line for line in stderr.splitlines() if not DOCUMENTED.fullmatch(line)]
    assert undocumented == [], stderr
    if code == 0:
        assert stdout
        return
    assert stdout == "" or code == -signal.SIGTERM
    assert code == (130 if number == signal.SIGINT else -number), stderr
    assert stderr.splitlines().count(INTERRUPTED) == (number == signal.SIGINT), stderr


@pytest.fixture(scope="module", params=["1", "2", "4", "many"], ids=["1", "2", "4", "many images"])
def project(request, zygote, image):
    words = many_words(image) if request.param == "many" else project_words(image, "-n", request.param)
    with scenario(zygote, image, words) as found:
        yield found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_at_a_write(project, number):
    calls = project.writes(signal=number)
    codes = Counter()
    for at in sample(max(1, POINTS // 2), len(calls), seed=SEED):
        with project.fresh(at) as place:
            ended = project.run(place, Fault(at=at, signal=number), cpus=2)
            codes[ended.code] += 1
            ended_as_documented(number, ended.code, ended.stdout, ended.stderr)
            nobody_works_in(place)
            left_nothing_readable(place)
            project.is_sound(place)
    print(f"seed {SEED}: {len(calls)} writes, {codes.total()} tried, exit codes {dict(codes)}")  # noqa: T201
    assert codes[130 if number == signal.SIGINT else -number] > 0


def test_ctrl_c_at_a_time(project):
    """Of a process as its user starts it."""
    draw = random.Random(SEED)
    with project.fresh("timed") as place:
        process = start(place, project.words(place))
        first, whole = time_of_first_line(process)
    codes = Counter()
    for number in range(max(1, POINTS // 4)):
        with project.fresh(number) as place:
            process = start(place, project.words(place))
            time.sleep(draw.uniform(first, whole))
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate()
            codes[process.returncode] += 1
            ended_as_documented(signal.SIGINT, process.returncode, stdout, stderr)
            nobody_works_in(place)
            left_nothing_readable(place)
            project.is_sound(place)
    print(f"seed {SEED}: {codes.total()} times in {first:.1f} to {whole:.1f} s, exit codes {dict(codes)}")  # noqa: T201


def test_ctrl_c_while_the_interpreter_ends_changes_nothing(project):
    with project.fresh("late") as place:
        for _ in range(3):
            (place.folder / "sconify.yaml").unlink(missing_ok=True)
            process = start(place, project.words(place))
            result = process.stdout.readline()
            # From its last words on: some milliseconds, of which each try meets others.
            for _ in range(5):
                time.sleep(0.002)
                process.send_signal(signal.SIGINT)
            rest, stderr = process.communicate()
            assert (process.returncode, rest) == (0, ""), stderr
            assert result
            assert [line for line in stderr.splitlines() if not DOCUMENTED.fullmatch(line)] == []


def time_of_first_line(process) -> tuple[float, float]:
    """When a run says that it began, and when it has ended: before, the interpreter is still on its way to us."""
    begun = time.monotonic()
    process.stderr.readline()
    first = time.monotonic() - begun
    process.communicate()
    return first, time.monotonic() - begun
