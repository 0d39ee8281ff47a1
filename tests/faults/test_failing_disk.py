"""A disk that is full or broken at any write: exit code 1 and a clear line, nothing half, and the next build is right.

Of the writes a sample is tried, evenly spread: SCONIFY_TESTS_FAULTS of them in each test, or all where that is more. The seed is
printed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections import Counter

import pytest
from build.small_image import Place
from cli.commands import BIN, arguments, variables
from faults.failing import Fault, sample

from sconify_cache.gc import verify
from sconify_cache.house import open_house
from sconify_tasks.image.validate import validate

POINTS = int(os.environ.get("SCONIFY_TESTS_FAULTS", "10"))
SEED = 20261123
DATABASE = re.compile(r"\.(db|sqlite)\b")


def fresh(good, tmp_path, number) -> Place:
    return good.beside(tmp_path / f"at-{number}")


def writes(zygote, image, good, tmp_path, *, kills=False) -> list[str]:
    """What a build writes: a line a call."""
    place = fresh(good, tmp_path, "none")
    log = tmp_path / "log"
    ended = zygote.run(place, image, Fault(at=0, kills=kills), log=log)
    assert ended.code == 0, ended.stderr
    return log.read_text().splitlines()


def is_sound(zygote, image, place, good) -> None:
    """The next build ends well, with what a clean build gives, and leaves no scraps."""
    ended = zygote.run(place, image)
    assert ended.code == 0, ended.stderr
    validate(place.layout, "small")
    assert place.image_digest() == good.image_digest()
    assert list((place.cache / "store" / "tmp").iterdir()) == []
    assert [path.name for path in place.resources.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in place.layout.rglob(".sconify-*")] == []
    house = open_house(place.cache)
    found = verify(house.store, index=house.index, repair=False)
    house.close()
    assert (found.damaged, found.incomplete) == ((), 0)


@pytest.mark.parametrize("stays", [True, False], ids=["from-then-on", "once"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_every_write_may_fail(zygote, image, good, tmp_path, number, stays):  # noqa: PLR0917
    calls = writes(zygote, image, good, tmp_path)
    codes = Counter()
    wrong = []
    for at in sample(POINTS, len(calls), seed=SEED + number):
        place = fresh(good, tmp_path, at)
        ended = zygote.run(place, image, Fault(at=at, error=number, stays=stays))
        codes[ended.code] += 1
        try:
            ended_clearly(ended, place, good, number)
            is_sound(zygote, image, place, good)
        except Exception as error:  # noqa: BLE001 - all of them are to be seen
            wrong.append(f"{calls[at - 1]}: {type(error).__name__}: {error}\n{ended.stderr[-1500:]}")
        shutil.rmtree(place.folder)
    print(f"seed {SEED + number}: {len(calls)} writes, {sum(codes.values())} tried, exit codes {dict(codes)}")  # noqa: T201
    assert not wrong, "\n\n".join(wrong)
    assert codes[1] > 0


def ended_clearly(ended, place, good, number) -> None:
    assert ended.code in (0, 1)
    assert "Traceback" not in ended.stderr
    if ended.code == 0:
        assert place.image_digest() == good.image_digest()
        return
    assert ended.stdout == ""
    (line,) = ended.errors
    # What SQLite makes of it depends on where it happens: a write, a sync, a file that can't be opened.
    database = "is full|disk I/O error|unable to open|readonly database" if DATABASE.search(line) else os.strerror(number)
    assert re.search(f"{database}|{os.strerror(number)}", line), line
    assert re.search(r": \S", line)
    if (place.layout / "index.json").exists():
        validate(place.layout, "small")
        assert place.image_digest() == good.image_digest()
    else:
        assert not place.session.exists()


def test_what_is_counted_is_what_the_kernel_is_asked(image, good, tmp_path, need, zygote):
    calls = writes(zygote, image, good, tmp_path)
    place = fresh(good, tmp_path, "traced")
    trace = tmp_path / "trace"
    kinds = "write,pwrite64,writev,pwritev,copy_file_range,sendfile,fsync,fdatasync,ftruncate,rename,link,linkat,mkdir"
    words = [need("strace"), "-f", "-qq", "-y", "-e", f"trace={kinds}", "-o", trace]
    words += ["taskset", "-c", str(min(os.sched_getaffinity(0))), BIN / "sconify_image", *arguments(image, place)[1:]]
    subprocess.run(words, cwd=place.folder, env=variables(place), check=True, capture_output=True)
    asked = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if str(place.folder) in line]
    for databases in (False, True):
        traced = Counter(line.split("(")[0] for line in asked if bool(DATABASE.search(line)) == databases)
        counted = Counter(line.split()[1].removesuffix("64") for line in calls if bool(DATABASE.search(line)) == databases)
        traced["pwrite"] += traced.pop("pwrite64", 0)
        for kind, count in traced.items():
            # How often databases are written differs from run to run: one more page, another connection that closes last.
            assert abs(counted[kind] - count) <= (0.3 * count + 2 if databases else 2), (kind, counted, traced)
