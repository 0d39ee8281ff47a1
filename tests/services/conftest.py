"""A Debian root file system with several services, imported once a test run, and what makes confidential images of it."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from main_job.conftest import Workshop, workshop  # noqa: F401 - a fixture
from main_job.containers import Containers
from main_job.server import serving
from parts.debian import make_rootfs
from parts.engine import Engine

APP = Path(__file__).parent / "app"
SECRET = "the word that only the service knows"
# Ordinary users have no right to the image's files but to read them; what is written goes to memory.
LEAST = ("--user=1000", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--tmpfs=/run")
USERS = {"as root": (), "as an ordinary user": LEAST}
MODES = {"dir": ("--dir=/app",), "binary-fs": ("--binary-fs", "--fs-dir=/app")}
_PACKAGES = "python3,nginx-light,redis-server,nodejs,perl,ruby,php-cli,coreutils,dash,base-files"
_PASSWD = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"
_NGINX = """
user www-data; daemon off; worker_processes 2; pid /tmp/nginx.pid; error_log /dev/stderr;
events { worker_connections 64; }
http {
    include /etc/nginx/mime.types; access_log off;
    client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
    server { listen 127.0.0.1:PORT; root /app; }
}
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The image with the services; `convert` makes a confidential one, on nothing but what the tool copies."""

    image: str
    workshop: Workshop
    containers: Containers

    def convert(self, name: str, *arguments: str, source: str = "") -> str:
        engine = self.workshop.engine
        made = engine.name(name)
        done = self.workshop.sconify(
            f"--from={source or 'docker:' + self.image}",
            f"--to=docker:{made}",
            "--base=scratch",
            "--allow-debug-mode",
            *arguments,
        )
        assert done.status == 0, done.stderr
        return made

    def run(self, image: str, *options: str):
        return self.containers.run(image, "", "--network=host", *options)


@pytest.fixture(scope="session")
def lab(workshop: Workshop, engine: Engine) -> Iterator[Lab]:  # noqa: F811
    def make() -> str:
        base = engine.import_rootfs(make_rootfs("bookworm-services", _PACKAGES), changes=["ENV PATH=/usr/sbin:/usr/bin:/bin"])
        image = engine.build(f'FROM {base}\nADD app.tar /\nWORKDIR /app\nCMD ["/bin/true"]\n', {"app.tar": _files()})
        engine.made.remove(image)  # the last worker removes it
        return image

    image = workshop.once("services", make)
    with serving(workshop.home, "127.0.0.2") as cas:
        yield Lab(image=image, workshop=workshop, containers=Containers(host=engine.host, cas=cas))


def _files() -> bytes:
    files = {f"app/{path.relative_to(APP)}": path.read_bytes() for path in sorted(APP.rglob("*")) if path.is_file()}
    files |= {f"app/nginx-{mode}.conf": _NGINX.replace("PORT", str(free_port())).encode() for mode in MODES}
    files |= {"app/secret.txt": SECRET.encode() + b"\n", "etc/passwd": _PASSWD.encode(), "etc/group": b"www-data:x:33:\n"}
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size, info.mtime, info.mode = len(content), 1_600_000_000, 0o755 if "entry" in path else 0o644
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()
