"""A disk that is full or broken at any write: exit code 1 and a clear line, nothing half, and the next build is right.

SCONIFY_TESTS_FAULTS writes are tried in each test, evenly spread; all where that is not less. docs/robustness.md has the
figures of all.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections import Counter

import pytest
from cli.commands import BIN, variables
from faults.failing import Fault, sample
from faults.scenarios import delivered, left_nothing_readable

from sconify_tasks.image.validate import validate

POINTS = int(os.environ.get("SCONIFY_TESTS_FAULTS", "8"))
SEED = 20261123
DATABASE = re.compile(r"\.(db|sqlite)\b")
# What SQLite makes of an error depends on where it happens: a write, a sync, a file that can't be opened.
OF_DATABASES = "is full|disk I/O error|unable to open|readonly database"


# A disk that fills up stays full; a bad sector is one. The other two ways are tried too.
@pytest.mark.parametrize("stays", [True, False], ids=["from-then-on", "once"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("door", ["one_image", "project"])
def test_every_write_may_fail(request, door, number, stays):
    scenario = request.getfixturevalue(door)
    calls = scenario.writes()
    codes, kinds, wrong = Counter(), Counter(), []
    for at in sample(POINTS, len(calls), seed=SEED + number):
        hit = scenario.folder / "hit"
        hit.unlink(missing_ok=True)
        said = ""
        try:
            with scenario.fresh(f"{at}-{number}-{int(stays)}") as place:
                ended = scenario.run(place, Fault(at=at, error=number, stays=stays), log=hit)
                said = ended.stderr
                first = hit.read_text().splitlines()[:1]  # none: this run wrote less than the one that was counted
                codes[ended.code if first else "not reached"] += 1
                kinds[first[0].split()[1] if first else "not reached"] += 1
                ended_clearly(ended, place, scenario.good, number)
                scenario.is_sound(place)
        except Exception as error:  # noqa: BLE001 - all of them are to be seen
            wrong.append(f"{at}: {calls[at - 1]}: {type(error).__name__}: {str(error)[:1500]}\n{said[-1500:]}")
            print(wrong[-1], flush=True)  # noqa: T201 - a run of all takes long
    print(f"seed {SEED + number}: {len(calls)} writes, {codes.total()} tried, exit codes {dict(codes)}, {dict(kinds)}")  # noqa: T201
    assert not wrong, "\n\n".join(wrong)
    assert codes[1] > 0
    assert codes["not reached"] <= 0.05 * codes.total() + 1


def ended_clearly(ended, place, good, number) -> None:
    if ended.code == 2:  # before any work was done
        assert re.match(r"Error: --(events|trace)=\S+ can't be written: ", ended.errors[0]), ended.stderr
    else:
        assert ended.code in (0, 1)
    for sign in ("Traceback", "Exception ignored", "Fatal Python"):
        assert sign not in ended.stderr
    left_nothing_readable(place)
    if ended.code == 0:
        assert ended.stdout
        assert delivered(place) == delivered(good)
        return
    assert ended.stdout == ""
    (line,) = ended.errors
    reasons = f"{OF_DATABASES}|{os.strerror(number)}" if DATABASE.search(line) else os.strerror(number)
    assert re.search(reasons, line), line
    assert re.search(r": \S", line)
    if (place.layout / "index.json").exists():
        validate(place.layout, "small")
        assert place.image_digest() == good.image_digest()
    else:
        assert not place.session.exists()


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
