"""Containers of sconified images: started as a user would, or changed on the disk first as an attacker would."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from main_job.server import Cas

LABEL = "sconify-test=main-job"
_PATIENCE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing on the disk that is not as it was built: content, or a symlink's target."""

    content: bytes = b""
    target: str = ""
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a container left."""

    status: int
    stdout: str
    stderr: str

    @property
    def started(self) -> bool:
        """Whether the protected program ran its first line."""
        return "STARTED" in self.stdout

    @property
    def told(self) -> Any:
        """The last line of what the program told, parsed."""
        assert self.status == 0, (self.stdout, self.stderr)
        return json.loads(self.stdout.splitlines()[-1])


@dataclass(slots=True, kw_only=True)
class Containers:
    """`docker` on one engine, with the addresses of one CAS."""

    host: str
    cas: Cas
    made: list[str] = field(default_factory=list)

    def docker(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "-H", self.host, *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, (arguments, done.stderr.decode())
        return done

    def addresses(self, *, cas: Cas | None = None, host: str | None = None) -> list[str]:
        """Options of `docker run` that tell where CAS and LAS are."""
        at = cas or self.cas
        where = host or at.host
        return ["-e", f"SCONE_CAS_ADDR={where}:{at.enclave_port}", "-e", f"SCONE_LAS_ADDR={where}:{at.las_port}"]

    def run(
        self,
        image: str,
        program: str = "",
        *options: str,
        changes: Mapping[str, Change] | None = None,
        cas: Cas | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> Ended:
        """Make a container, change its disk, start it with `program` on standard input, and wait for its end."""
        extra = [word for name, value in (environment or {}).items() for word in ("-e", f"{name}={value}")]
        name = self._name()
        self.docker(
            "create", "-i", "--name", name, "--label", LABEL, *self.addresses(cas=cas), *extra, *options, image, *command
        )
        try:
            if changes:
                self.docker("cp", "-", f"{name}:/", stdin=_archive(changes))
            done = self.docker("start", "-ai", name, stdin=program.encode(), check=False)
        finally:
            self.remove(name)
        return Ended(
            status=done.returncode, stdout=done.stdout.decode(errors="replace"), stderr=done.stderr.decode(errors="replace")
        )

    def start(self, image: str, *options: str, addresses: list[str] | None = None) -> str:
        """Start a container in the background; return its name."""
        name = self._name()
        self.docker("run", "-d", "--name", name, "--label", LABEL, *(addresses or self.addresses()), *options, image)
        return name

    def follow(self, name: str, awaited: str) -> str:
        """Read a container's output until the line that starts with `awaited`; return that line."""
        command = ["docker", "-H", self.host, "logs", "-f", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as following:
            assert following.stdout is not None
            lines = []
            for line in following.stdout:
                lines.append(line)
                if line.startswith(awaited):
                    following.terminate()
                    return line.strip()
        raise AssertionError(f"{name} ended without {awaited!r}: {''.join(lines)}")

    def exit_status(self, name: str) -> int:
        return int(self.docker("wait", name).stdout)

    def read(self, image: str, path: str) -> bytes:
        """The stored bytes of a file of an image."""
        name = self._name()
        self.docker("create", "--name", name, "--label", LABEL, image)
        try:
            with tarfile.open(fileobj=io.BytesIO(self.docker("cp", f"{name}:{path}", "-").stdout)) as archive:
                content = archive.extractfile(archive.next())
                assert content is not None
                return content.read()
        finally:
            self.remove(name)

    def derive(self, image: str, *command: str) -> str:
        """Commit what a program of the base image did to the disk; entry point and command stay the image's."""
        name, derived = self._name(), f"sconify-test/derived-{uuid.uuid4().hex[:10]}:1"
        config = json.loads(self.docker("inspect", "-f", "{{json .Config}}", image).stdout)
        self.docker("run", "--name", name, "--label", LABEL, "--entrypoint", command[0], image, *command[1:])
        try:
            entrypoint = f"ENTRYPOINT {json.dumps(config['Entrypoint'])}"
            self.docker("commit", "--change", entrypoint, "--change", "CMD []", name, derived)
        finally:
            self.remove(name)
        self.made.append(derived)
        return derived

    def remove(self, *names: str) -> None:
        self.docker("rm", "-f", *names, check=False)

    def forget(self) -> None:
        if self.made:
            self.docker("rmi", "-f", *self.made, check=False)

    def _name(self) -> str:
        return f"sconify-test-{uuid.uuid4().hex[:12]}"


def changed(content: bytes, *, at: int) -> bytes:
    """`content` with one bit of one byte flipped."""
    data = bytearray(content)
    data[at] ^= 1
    return bytes(data)


def _archive(changes: Mapping[str, Change]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, change in changes.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode, info.size = change.mode, len(change.content)
            if change.target:
                info.type, info.linkname = tarfile.SYMTYPE, change.target
            archive.addfile(info, io.BytesIO(change.content))
    return out.getvalue()


Run = Callable[..., Ended]
