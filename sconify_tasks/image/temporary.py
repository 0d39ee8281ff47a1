"""Containers that exist only to be read from: made, labelled with their owner, removed; a dead owner's by the next run."""

from __future__ import annotations

import datetime as dt
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sconify_tasks.image.engine import engine_errors

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "io.sconify-tasks.temporary"
_HOUR = 3600 * 1_000_000_000
_START_TIME = 19  # field 22 of /proc/PID/stat, counted after the parenthesis that closes the name
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*Z\Z")


def new_container(client: DockerClient, image: str) -> str:
    """Create a container of `image` that nobody will start, and return its id.

    Its working directory is `/`, because the engine makes a missing one; its command is needed only for being there.
    """
    created = client.api.create_container(
        image, command=["-"], working_dir="/", network_disabled=True, labels={LABEL: _owner(os.getpid())}
    )
    return str(created["Id"])


def remove_container(client: DockerClient, container: str) -> None:
    """Remove a container with its anonymous volumes; one that is gone already is fine."""
    from docker import errors

    with engine_errors("removing a temporary container"), suppress(errors.NotFound):
        client.api.remove_container(container, v=True, force=True)


def engine_time(client: DockerClient, container: str) -> int:
    """Return when the container was made, in nanoseconds of the engine's clock."""
    return _nanoseconds(str(client.api.inspect_container(container)["Created"]))


def sweep(client: DockerClient) -> None:
    """Remove the labelled containers of dead owners; of owners that can't be seen from here, those older than an hour."""
    from docker import errors

    for found in client.api.containers(all=True, filters={"label": LABEL}):
        owner = str((found.get("Labels") or {}).get(LABEL))
        age = _now() - int(found["Created"]) * 1_000_000_000
        if _dead(owner, age):
            with suppress(errors.APIError):  # another run sweeps at the same time
                client.api.remove_container(found["Id"], v=True, force=True)


def _owner(pid: int) -> str:
    """Name a process so that no later one is taken for it: machine boot, pid namespace, pid, start time."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}/{pid}/{_start(pid)}"


def _start(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_TIME]
    except (OSError, IndexError):
        return ""


def _dead(owner: str, age: int) -> bool:
    here = _owner(os.getpid()).split("/")
    there = owner.split("/")
    if len(there) != len(here) or there[:2] != here[:2] or not there[2].isdigit():
        return age > _HOUR
    return _start(int(there[2])) != there[3]


def _now() -> int:
    return int(dt.datetime.now(tz=dt.UTC).timestamp()) * 1_000_000_000


def _nanoseconds(text: str) -> int:
    match = _TIME.match(text)
    if match is None:
        return 0
    whole = dt.datetime.fromisoformat(match[1]).replace(tzinfo=dt.UTC)
    return int(whole.timestamp()) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
