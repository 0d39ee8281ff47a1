"""A run that says at its end which of the program's slow parts it loaded."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from build.small_image import Place
from cli.commands import BIN, Ended, variables
from parts.delivered import moment, validate_written

# The last line on stderr names those of these modules that were imported.
MODULES = (
    *("yaml", "rfc8785", "cryptography", "docker", "twisted", "rich", "blake3"),
    *("sconify_tasks.build", "sconify_tasks.project", "sconify_dodo.front", "sconify_dodo.tasks"),
)
_TELL = """\
import atexit, os, sys
def tell():
    found = [name for name in {modules!r} if name in sys.modules]
    os.write(2, ("imported: " + " ".join(found) + "\\n").encode())
atexit.register(tell)
"""


def run_watched(
    place: Place,
    words: Sequence[str],
    *,
    hook: Path,
    modules: Sequence[str] = MODULES,
    folder: Path | None = None,
    more: dict[str, str] | None = None,
) -> Ended:
    """Run a command, after the last change has become old enough to be told from the next one. `hook` is made if need be."""
    time.sleep(0.1)
    if not hook.exists():
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(_TELL.format(modules=tuple(modules)))
    name, *rest = words
    begun = moment()
    ended = subprocess.run(
        [BIN / name, *rest],
        cwd=folder or place.folder,
        env=variables(place, PYTHONPATH=str(hook)) | (more or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ended.returncode == 0:
        validate_written(place.folder.parent, since=begun)
    return Ended(code=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)


def planned(ended: Ended) -> bool:
    """Whether a plan was made."""
    return "sconify_tasks.build" in ended.stderr.splitlines()[-1]
