"""The two commands as their users start them: real processes, real exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build.small_image import Place
from parts.delivered import moment, validate_written

BIN = Path(sys.executable).parent
NO_ENGINE = "unix:///nonexistent/docker.sock"
TIMEOUT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """What a user takes for an error message."""
        return [line for line in self.stderr.splitlines() if line.startswith(("Error:", "error:", "Traceback"))]


def variables(place: Place, **more: str) -> dict[str, str]:
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "DOCKER_HOST": NO_ENGINE, "TMPDIR": str(temporary(place))}
    return place.variables(**(ours | more))


def temporary(place: Place) -> Path:
    folder = place.folder / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def arguments(native: Path, place: Place, *more: str) -> list[str]:
    """A complete command line; what `more` says of the same option goes last and wins."""
    base = [f"--from=dir:{native}", f"--to=oci:{place.layout}:small", "--base=scratch", "--binary=/bin/prog"]
    return ["sconify_image", *base, "--dir=/app", "--plain=/plain", "--allow-debug-mode", "--disable-pie-check", *more]


def run(place: Place, words: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Ended:
    """Run a command to its end. Images that it wrote beside the place are valid, if it says that all went well."""
    begun = moment()
    found = subprocess.run(
        [BIN / words[0], *words[1:]],
        cwd=folder or place.folder,
        env=variables(place, **(env or {})),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if found.returncode == 0:
        validate_written(place.folder.parent, since=begun)
    return Ended(code=found.returncode, stdout=found.stdout, stderr=found.stderr)


def start(place: Place, words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / words[0], *words[1:]],
        cwd=place.folder,
        env=variables(place, PYTHONFAULTHANDLER="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As from a terminal: a shell that starts jobs in the background makes them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one C call
    )


def stop_at(process: subprocess.Popen[str], line: str, number: signal.Signals) -> Ended:
    """Send a signal when the process says `line`; return how it ended, whether or not it ever did."""
    assert process.stderr is not None
    assert process.stdout is not None
    said = []
    # A process that hangs says where (PYTHONFAULTHANDLER), and fails the test by its code.
    alarm = threading.Timer(TIMEOUT, process.send_signal, [signal.SIGABRT])
    alarm.start()
    for got in process.stderr:
        said.append(got)
        if got.rstrip("\n") == line:
            process.send_signal(number)
            break
    said.append(process.stderr.read())
    stdout = process.stdout.read()
    code = process.wait(TIMEOUT)
    alarm.cancel()
    process.stderr.close()
    process.stdout.close()
    return Ended(code=code, stdout=stdout, stderr="".join(said))
