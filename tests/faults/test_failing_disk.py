"""A disk that is full or broken at any write: exit code 1 and a clear line, nothing half, and the next build is right.

SCONIFY_TESTS_FAULTS writes are tried in each test, evenly spread. `python -m faults.whole` tries all; docs/robustness.md has
its figures.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections import Counter

import pytest
from cli.commands import BIN, variables
from faults.every_write import DATABASE, NOT_REACHED, try_writes
from faults.failing import Fault, sample

POINTS = int(os.environ.get("SCONIFY_TESTS_FAULTS", "8"))
SEED = 20261123


# A disk that fills up stays full; a bad sector is one. The other two ways are tried too.
@pytest.mark.parametrize("stays", [True, False], ids=["from-then-on", "once"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("door", ["one_image", "project", "many"])
def test_every_write_may_fail(request, door, number, stays):
    scenario = request.getfixturevalue(door)
    calls = scenario.writes()
    numbers = sample(POINTS // 4 if door == "many" else POINTS, len(calls), seed=SEED + number)
    tally = try_writes(scenario, calls, numbers, Fault(error=number, stays=stays), cpus=scenario.processes)
    tried = tally.codes.total()
    print(f"seed {SEED + number}: {len(calls)} writes, {tried} tried, exit codes {dict(tally.codes)}, {dict(tally.kinds)}")  # noqa: T201
    assert not tally.wrong, "\n\n".join(tally.wrong)
    assert tally.codes[1] > 0 or tried < POINTS  # two may both meet what a build can do without
    assert tally.codes[NOT_REACHED] <= 0.05 * tried + 1


def test_a_workers_failure_is_told_once_also_where_doits_state_is_lost_with_it(many):
    """SQLite goes on without its shared memory file, until something is to be written."""
    calls = many.writes()
    opened = [at for at, line in enumerate(calls, 1) if "open" in line and line.endswith("/doit.db-shm")]
    assert len(opened) > 1  # the run's own, and the workers'
    tally = try_writes(many, calls, opened[1:], Fault(error=errno.EIO, stays=True), cpus=many.processes)
    assert not tally.wrong, "\n\n".join(tally.wrong)


def test_what_is_counted_is_what_the_kernel_is_asked(one_image, tmp_path, need):
    calls = one_image.writes()
    trace = tmp_path / "trace"
    kinds = "write,pwrite64,writev,pwritev,copy_file_range,sendfile,fsync,fdatasync,ftruncate,rename,link,linkat,mkdir"
    words = [need("strace"), "-f", "-qq", "-y", "-e", f"trace={kinds}", "-o", trace]
    with one_image.fresh("traced") as place:
        words += ["taskset", "-c", str(min(os.sched_getaffinity(0))), BIN / "sconify_image", *one_image.words(place)[1:]]
        subprocess.run(words, cwd=place.folder, env=variables(place), check=True, capture_output=True)
        asked = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if str(place.folder) in line]
    for databases in (False, True):
        traced = Counter(line.split("(")[0] for line in asked if bool(DATABASE.search(line)) == databases)
        counted = Counter(line.split()[1].removesuffix("64") for line in calls if bool(DATABASE.search(line)) == databases)
        traced["pwrite"] += traced.pop("pwrite64", 0)
        for kind, count in traced.items():
            # How often databases are written differs from run to run: one more page, another connection that closes last.
            assert abs(counted[kind] - count) <= (0.3 * count + 2 if databases else 2), (kind, counted, traced)
