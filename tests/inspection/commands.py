"""The two commands as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from parts.delivered import moment, validate_written

MODULES = {"sconify-inspect": "sconify_tasks.inspection.cli", "sconify-sign": "sconify_tasks.signing.cli"}
NO_ENGINE = "unix:///nonexistent/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    code: int
    out: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.out.decode()


def run(command: str, *words: str | Path, home: Path, engine: str = NO_ENGINE) -> Ended:
    begun = moment()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_HOST": engine}
    ended = subprocess.run(
        [sys.executable, "-m", MODULES[command], *words],
        cwd=home,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if ended.returncode == 0:
        validate_written(home, since=begun)
    return Ended(code=ended.returncode, out=ended.stdout, stderr=ended.stderr.decode())
