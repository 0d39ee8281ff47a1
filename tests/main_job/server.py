"""`sconify-cas serve` on free ports, until the end of the block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
_PATIENCE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Cas:
    """Where a running CAS and its LAS are, and the pin of its key."""

    host: str
    api_port: int
    enclave_port: int
    las_port: int
    spki: str


@contextmanager
def serving(home: Path, host: str, *, usual_ports: bool = False) -> Iterator[Cas]:
    """Serve the state folder of `home` on `host`, where containers find it, and but for the usual ports on loopback too."""
    where = ["--listen", host]
    if not usual_ports:
        where += ["--listen", "127.0.0.1", "--api-port", "0", "--enclave-port", "0", "--las-port", "0"]
    command = [str(PROGRAMS / "sconify-cas"), "serve", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**clean_environment(), "HOME": str(home)}, text=True) as server:
        assert server.stdout is not None
        try:
            facts = json.loads(server.stdout.readline())
            yield Cas(host=host, spki=facts["spki"], **{name: facts[name] for name in ("api_port", "enclave_port", "las_port")})
        finally:
            server.terminate()
            server.wait(_PATIENCE)


def clean_environment() -> dict[str, str]:
    """The process's environment without what would change a build."""
    changing = ("SCONIFY_", "XDG_", "SOURCE_DATE_EPOCH", "DOCKER_", "SCONE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(changing)}
