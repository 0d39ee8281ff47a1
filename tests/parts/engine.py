"""A Docker Engine for tests: the one named by SCONIFY_TEST_DOCKER_HOST, else one of our own, started once per test process."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parts.need import find_tool, missing

HOST = "SCONIFY_TEST_DOCKER_HOST"
PATIENCE = 60


@dataclass
class Engine:
    """A running engine. Images made through it are removed at the end."""

    host: str
    client: Any
    made: list[str] = field(default_factory=list)

    def name(self, stem: str = "t") -> str:
        """A fresh image name that is removed at the end."""
        name = f"sconify-test/{stem}-{uuid.uuid4().hex[:10]}:1"
        self.made.append(name)
        return name

    def import_rootfs(self, tar: Path | bytes, *, changes: list[str] | None = None, name: str = "") -> str:
        """Make a one-layer image of a root file system tar; `changes` are Dockerfile instructions (`ENV A=B`, `CMD [...]`)."""
        name = name or self.name("rootfs")
        repository, _, tag = name.rpartition(":")
        if isinstance(tar, Path):
            self.client.api.import_image_from_file(str(tar), repository=repository, tag=tag, changes=changes or [])
        else:
            self.client.api.import_image_from_data(tar, repository=repository, tag=tag, changes=changes or [])
        return name

    def load(self, archive: Path) -> None:
        """Take the images of a docker-archive."""
        subprocess.run(["docker", "-H", self.host, "load", "-i", archive], check=True, capture_output=True)

    def build(self, dockerfile: str, files: Mapping[str, bytes] | None = None) -> str:
        """Build an image from a Dockerfile text and files beside it."""
        name = self.name("built")
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, data in {"Dockerfile": dockerfile.encode(), **(files or {})}.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                info.mode = 0o755
                archive.addfile(info, io.BytesIO(data))
        for event in self.client.api.build(
            fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=name, decode=True, rm=True
        ):
            assert "error" not in event, event["error"]
        return name

    def forget(self) -> None:
        """Remove what was made."""
        for name in self.made:
            subprocess.run(["docker", "-H", self.host, "rmi", "-f", name], capture_output=True, check=False)


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine that answers, or the end of the test."""
    import docker

    host = os.environ.get(HOST)
    if host:
        engine = Engine(host, docker.DockerClient(base_url=host, timeout=600))
        engine.client.ping()
        yield from used(engine)
        return
    dockerd = find_tool("dockerd")
    if os.geteuid() != 0:
        missing(f"root, to start an engine for the tests (or {HOST})")
    # A short path: a socket's name has at most 107 bytes, and containerd's lies below the exec root.
    with tempfile.TemporaryDirectory(prefix="dk", dir="/tmp", ignore_cleanup_errors=True) as root:
        process, host = _start(dockerd, Path(root))
        try:
            yield from used(Engine(host, answering(host, process, Path(root))))
        finally:
            process.terminate()
            process.wait(PATIENCE)


def used(engine: Engine) -> Iterator[Engine]:
    """Give it to a test, and remove what was made."""
    try:
        yield engine
    finally:
        engine.forget()
        engine.client.close()


def _start(dockerd: str, root: Path) -> tuple[subprocess.Popen[bytes], str]:
    host = f"unix://{root}/d.sock"
    command = [dockerd, "-H", host, "--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/d.pid"]
    try:
        find_iptables()
    except LookupError:
        command += ["--iptables=false", "--bridge=none"]
    with (root / "log").open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        ), host


def find_iptables() -> str:
    """LookupError where there is none: the engine then runs without its bridge."""
    import shutil

    found = shutil.which("iptables", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        raise LookupError
    return found


def answering(host: str, process: subprocess.Popen[bytes], root: Path) -> Any:
    """Wait for its first answer; the end of the test where there is none."""
    import docker

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            client = docker.DockerClient(base_url=host, timeout=600)
            client.ping()
        except Exception:  # noqa: BLE001
            time.sleep(0.2)
        else:
            return client
    missing("an engine that starts: " + (root / "log").read_text(errors="replace")[-400:])
    return None
