"""Two users of one machine and a shared cache: each uses what the other one published, whoever owns the files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from build.small_image import Place
from cli.commands import BIN, Ended, arguments, run, variables
from cli.test_interrupted import somebody  # noqa: F401 - a fixture
from parts.need import missing

from sconify_tasks.graph import STEPS

USER = 12345
PRIVATE = {step.name for step in STEPS if not step.public}


def ran(ended: Ended) -> set[str]:
    assert ended.code == 0, ended.stderr
    assert "shared cache" not in ended.stderr
    return set(re.findall(r"^(?:\w+: )?(\w+) done", ended.stderr, re.MULTILINE))


def owners(shared: Path) -> set[int]:
    return {path.stat().st_uid for kind in ("actions", "blobs") for path in (shared / kind).rglob("*") if path.is_file()}


def test_what_root_published_another_user_takes_and_the_other_way_round(native, place: Place, somebody):  # noqa: F811
    folder, become = somebody
    shutil.copytree(native, folder / "native")
    shutil.copy(native.with_name("native.json"), folder / "native.json")
    (folder / "shared").mkdir()
    os.chown(folder / "shared", 0, USER)
    (folder / "shared").chmod(0o2775)
    shared = {"SCONIFY_SHARED_CACHE": str(folder / "shared")}

    assert run(place, arguments(folder / "native", place), env=shared).code == 0
    assert owners(folder / "shared") == {0}
    other = place.beside(folder / "place")
    env = variables(other, **shared)
    for path in (other.folder, *other.folder.rglob("*")):
        os.chown(path, USER, USER)
    if subprocess.run([*become, BIN / "python", "-c", "import sconify_dodo"], capture_output=True, check=False).returncode:
        missing("an interpreter that another user may run")

    def run_as_somebody(*more: str) -> Ended:
        words = arguments(folder / "native", other, *more)
        found = subprocess.run(
            [*become, BIN / words[0], *words[1:]], cwd=other.folder, env=env, capture_output=True, text=True, check=False
        )
        return Ended(code=found.returncode, stdout=found.stdout, stderr=found.stderr)

    assert ran(run_as_somebody()) == PRIVATE
    assert other.image_digest() == place.image_digest()
    assert {"sign", "sconify", "image"} <= ran(run_as_somebody("--heap=2G"))
    assert owners(folder / "shared") == {0, USER}

    taken = ran(run(place, arguments(folder / "native", place, "--heap=2G"), env=shared))
    assert taken
    assert taken <= PRIVATE
    assert other.image_digest() == place.image_digest()
