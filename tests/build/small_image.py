"""A native image as a folder, small enough to be converted in a fraction of a second, and the build of it in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sconify_dodo.front import Order, build_all
from sconify_tasks.environment import read_environment
from sconify_tasks.events import Event, StepFailed, StepFinished, StepStarted, Stream, Warned
from sconify_tasks.image.validate import validate
from sconify_tasks.option_types import Value
from sconify_tasks.options import Options
from sconify_tasks.world import World, open_world

ROOT_KEY = "5a" * 32
SECRET = b"marker-of-a-protected-file: 4f1d7c\n"
OTHER = b"another protected file\n" * 4000
PLAIN = b"anybody may read this\n"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["/bin/prog"], "Env": ["NATIVE=marker-of-the-native-environment"], "WorkingDir": "/app"},
}
PROGRAM = "int main(void) { return 0; }\n"


def compile_program(gcc: str, into: Path, *arguments: str, source: str = PROGRAM) -> Path:
    """A real ELF file."""
    subprocess.run([gcc, "-O1", "-x", "c", "-", "-o", into, *arguments], input=source.encode(), check=True)
    return into


def make_native(folder: Path, program: Path) -> Path:
    """A root file system with a program, a protected directory and a plain one."""
    for path, content in {"app/secret": SECRET, "app/sub/other": OTHER, "plain/readme": PLAIN}.items():
        write(folder / path, content)
    (folder / "bin").mkdir()
    (folder / "bin" / "prog").write_bytes(program.read_bytes())
    (folder / "bin" / "prog").chmod(0o755)
    (folder / "app" / "run").write_bytes(b"#!/bin/true\n")
    (folder / "app" / "run").chmod(0o755)
    write_config(folder, CONFIG)
    for path in sorted(folder.rglob("*")):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    folder.with_name(folder.name + ".json").write_text(json.dumps(config))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one user works: home, and the folder that the build is started in."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "sconify"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "sconify"

    @property
    def layout(self) -> Path:
        return self.folder / "out"

    @property
    def resources(self) -> Path:
        return self.folder / "build-resources"

    @property
    def session(self) -> Path:
        return self.resources / "session.yml"

    def variables(self, **more: str) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "SCONIFY_ROOT_KEY": ROOT_KEY, **more}

    def beside(self, folder: Path) -> Place:
        """Another place of the same user: the CAS and who speaks to it are inputs, so they come along."""
        other = Place(folder=folder)
        shutil.copytree(self.state / "cas", other.state / "cas")
        shutil.copytree(self.home / ".cas", other.home / ".cas")
        return other

    def image_digest(self) -> str:
        (entry,) = json.loads((self.layout / "index.json").read_text())["manifests"]
        return str(entry["digest"])

    def layers(self) -> list[Path]:
        blobs = self.layout / "blobs"
        manifest = json.loads((blobs / self.image_digest().replace(":", "/")).read_text())
        return [blobs / layer["digest"].replace(":", "/") for layer in manifest["layers"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, and everything that it said on the way."""

    code: int
    events: Sequence[Event]

    @property
    def ran(self) -> set[str]:
        return {event.step for event in self.events if isinstance(event, StepFinished) and not event.cached}

    @property
    def started(self) -> list[str]:
        return [event.step for event in self.events if isinstance(event, StepStarted)]

    @property
    def failures(self) -> dict[str, str]:
        return {event.step: event.message for event in self.events if isinstance(event, StepFailed)}

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@dataclass(slots=True, kw_only=True)
class Recorder:
    """A subscriber that keeps every event, and may do something when one comes."""

    react: Callable[[Event], None] | None = None
    events: list[Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)
        if self.react is not None:
            self.react(event)


def options_for(native: Path, place: Place, **given: Value) -> Options:
    chosen: dict[str, Value] = {
        "from": f"dir:{native}",
        "to": f"oci:{place.layout}:small",
        "base": "scratch",
        "binary": "/bin/prog",
        "dir": ("/app",),
        "plain": ("/plain",),
        "allow-debug-mode": True,
        "disable-pie-check": True,
    }
    return Options.of(chosen | {name.replace("_", "-"): value for name, value in given.items()})


def order_for(native: Path, place: Place, **given: Value) -> Order:
    return Order(name="small", options=options_for(native, place, **given), resources=place.resources)


@contextmanager
def world_of(place: Place, recorder: Recorder, **variables: str) -> Iterator[World]:
    environment = read_environment(place.variables(**variables))
    world = open_world(environment, project="tests", events=Stream([recorder]))
    # Files just written are "racily clean" and would be hashed again; an hour later they are not.
    world.now = lambda: datetime.now(UTC) + timedelta(hours=1)
    try:
        yield world
    finally:
        world.close()


def convert(
    native: Path,
    place: Place,
    *,
    jobs: int = 1,
    react: Callable[[Event], None] | None = None,
    variables: Mapping[str, str] | None = None,
    verbose: bool = False,
    **given: Value,
) -> Outcome:
    """Run the real build of one image in this process."""
    recorder = Recorder(react=react)
    with world_of(place, recorder, **(variables or {})) as world:
        world.verbose = verbose
        order = order_for(native, place, **given)
        code = build_all(world, [order], jobs=jobs, keep_going=False, debug=True).code
    if code == 0:
        validate(order.options.text("to"))
    return Outcome(code=code, events=tuple(recorder.events))


Snapshot = dict[str, tuple[int, int, int, int, int]]


def snapshot(*folders: Path) -> Snapshot:
    """Inode, mode, size, mtime and ctime of everything below: equal where nothing was written."""
    found: Snapshot = {}
    for folder in folders:
        for path in (folder, *sorted(folder.rglob("*"))):
            at = path.lstat()
            found[str(path)] = (at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
    return found
