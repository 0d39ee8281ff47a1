"""One native image, a few confidential ones made of it by the real command line, and a CAS that serves them.

What is costly is made once a test run: the workers of pytest-xdist share a folder, and the last one cleans up.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from main_job.containers import Containers
from main_job.native import Native, make_native
from main_job.server import PROGRAMS, Cas, clean_environment, serving
from parts.engine import Engine
from parts.need import missing

from sconify_tasks.cas.bridge import bridge_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `sconify_image` said and did."""

    status: int
    stdout: str
    stderr: str
    folder: Path


@dataclass(slots=True, kw_only=True)
class Workshop:
    """A folder that the workers of a test run share, with a home of its own, and the command line in it."""

    folder: Path
    engine: Engine

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "sconify"

    @contextmanager
    def locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def once(self, name: str, make: Callable[[], str]) -> str:
        """What `make` returns, made by the first worker that asks."""
        with self.locked():
            kept = self.folder / f"{name}.made"
            if not kept.exists():
                kept.write_text(make())
            return kept.read_text()

    def sconify(self, *arguments: str, home: Path | None = None) -> Built:
        """Run the command as a user does, with nothing of this test run's environment that would change its result."""
        environment = {**clean_environment(), "HOME": str(home or self.home), "DOCKER_HOST": self.engine.host}
        work = self.folder / f"cwd-{uuid.uuid4().hex[:8]}"
        work.mkdir()
        command = [str(PROGRAMS / "sconify_image"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=work, check=False)
        return Built(status=done.returncode, stdout=done.stdout, stderr=done.stderr, folder=work)

    def confidential(self, name: str, native: Native, *arguments: str) -> str:
        """Make an image, once a test run; return its name."""

        def make() -> str:
            image = self.engine.name(name)
            self.engine.made.remove(image)  # the last worker removes it, not the first
            built = self.sconify(
                f"--from=docker:{native.image}",
                f"--to=docker:{image}",
                "--binary=/usr/bin/python3",
                *(() if "--binary-fs" in arguments else ("--dir=/app", "--dir=/tls")),
                *arguments,
            )
            assert built.status == 0, built.stderr
            (self.folder / f"{name}.session").write_text(built.stdout.strip())
            shutil.copyfile(built.folder / "build-resources" / "session.yml", self.folder / f"{name}.yml")
            return image

        return self.once(name, make)

    def session(self, name: str) -> str:
        """NAMESPACE/SESSION of an image that `confidential` made."""
        return (self.folder / f"{name}.session").read_text()

    def session_text(self, name: str) -> str:
        """The whole session, keys included."""
        return (self.folder / f"{name}.yml").read_text()


@pytest.fixture(scope="session")
def workshop(engine: Engine, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Workshop]:
    top = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = top / f"main-job-{hashlib.sha256(engine.host.encode()).hexdigest()[:8]}"
    (folder / "users").mkdir(parents=True, exist_ok=True)
    shop = Workshop(folder=folder, engine=engine)
    # Each folder of tests that takes this fixture has one of its own, in every worker.
    user = folder / "users" / f"{worker_id}-{uuid4().hex}"
    with shop.locked():
        user.touch()
    yield shop
    with shop.locked():
        user.unlink()
        if not list((folder / "users").iterdir()):
            images = [kept.read_text() for kept in folder.glob("*.made") if not kept.read_text().startswith("{")]
            natives = [Native.from_json(kept.read_text()) for kept in folder.glob("native.made")]
            engine.made += [*images, *(name for native in natives for name in (native.image, native.base))]


@pytest.fixture(scope="session")
def bridge(engine: Engine) -> str:
    """Address of the engine's default bridge on this machine: where its containers find a server."""
    for network in engine.client.networks.list(names=["bridge"]):
        address = bridge_address(network.attrs["Options"].get("com.docker.network.bridge.name", "docker0"))
        if address:
            return address
    missing("an engine with a default bridge (iptables)")
    raise AssertionError


@pytest.fixture(scope="session")
def native(workshop: Workshop, engine: Engine, debian_rootfs: Path) -> Native:
    def make() -> str:
        made = make_native(engine, debian_rootfs)
        for name in (made.image, made.base):
            engine.made.remove(name)
        return made.to_json()

    return Native.from_json(workshop.once("native", make))


@pytest.fixture(scope="session")
def api(workshop: Workshop, native: Native) -> str:
    """The API, on nothing, started by the native image's own CMD in shell form."""
    return workshop.confidential("api", native, "--base=scratch", "--allow-debug-mode")


@pytest.fixture(scope="session")
def lab(workshop: Workshop, native: Native) -> str:
    """The same files on a Debian base; its program runs the Python that comes on standard input."""
    return workshop.confidential(
        "lab", native, f"--base=docker:{native.base}", "--command=python3 -B /app/lab.py", "--allow-debug-mode"
    )


@pytest.fixture(scope="session")
def cas(workshop: Workshop, bridge: str) -> Iterator[Cas]:
    """One server a worker, all on the state folder that the builds wrote to."""
    with serving(workshop.home, bridge) as served:
        yield served


@pytest.fixture(scope="session")
def containers(engine: Engine, cas: Cas) -> Iterator[Containers]:
    made = Containers(host=engine.host, cas=cas)
    yield made
    made.forget()
