"""A Debian root file system with several services, imported once a test run, and what makes confidential images of it."""

from __future__ import annotations

import io
import json
import random
import socket
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from main_job.conftest import Workshop, workshop  # noqa: F401 - a fixture
from main_job.containers import Containers, Ended
from main_job.server import serving
from parts.debian import make_rootfs
from parts.engine import Engine

APP = Path(__file__).parent / "app"
SECRET = "the word that only the service knows"
# Ordinary users have no right to the image's files but to read them; what is written goes to memory.
LEAST = ("--user=1000", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--tmpfs=/run")
USERS = {"as root": (), "as an ordinary user": LEAST}
MODES = {"dir": ("--dir=/app",), "binary-fs": ("--binary-fs", "--fs-dir=/app")}
_PACKAGES = "python3,nginx-light,redis-server,nodejs,perl,ruby,php-cli,php-fpm,coreutils,dash,base-files"
_JAVA = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java"
_COMPILE = [_JAVA, "-cp", "/usr/share/java/ecj.jar", "org.eclipse.jdt.internal.compiler.batch.Main"]
_PASSWD = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"
_NGINX = """
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
include /etc/nginx/modules-enabled/*.conf;
user www-data; daemon off; worker_processes 2; pid /tmp/nginx.pid; error_log /dev/stderr;
events { worker_connections 64; }
http {
    include /etc/nginx/mime.types; include /etc/nginx/conf.d/*.conf; access_log off;
    client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
    server {
        listen 127.0.0.1:PORT; root /app;
        location ~ php$ {
            include /etc/nginx/fastcgi_params;
            fastcgi_pass 127.0.0.1:FPM;
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
        }
    }
}
"""
_FPM = """
[global]
daemonize = no
error_log = /dev/stderr
[www]
listen = 127.0.0.1:FPM
user = www-data
group = www-data
pm = static
pm.max_children = 2
catch_workers_output = yes
"""
# Python as a virtual environment has it, made by hand as `python3 -m venv --without-pip` makes it.
_VENV = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n"


def free_port() -> int:
    """A port that nobody has, outside of those that the kernel gives to whoever asks for any: other tests' servers do."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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

    def shared(self, name: str, *arguments: str, source: str = "") -> str:
        """As `convert`, once a test run: several tests look at this one."""

        def make() -> str:
            made = self.convert(name, *arguments, source=source)
            self.workshop.engine.made.remove(made)  # the last worker removes it
            return made

        return self.workshop.once(name, make)

    def run(self, image: str, *options: str, **more: Any) -> Ended:
        return self.containers.run(image, "", "--network=host", *options, **more)


@pytest.fixture(scope="session")
def lab(workshop: Workshop, engine: Engine) -> Iterator[Lab]:  # noqa: F811
    def make() -> str:
        base = engine.import_rootfs(
            make_rootfs("bookworm-services-fpm", _PACKAGES), changes=["ENV PATH=/usr/sbin:/usr/bin:/bin"]
        )
        image = engine.build(f'FROM {base}\nADD app.tar /\nWORKDIR /app\nCMD ["/bin/true"]\n', {"app.tar": _files()})
        engine.made.remove(image)  # the last worker removes it
        return image

    image = workshop.once("services", make)
    with serving(workshop.home, "127.0.0.2") as cas:
        yield Lab(image=image, workshop=workshop, containers=Containers(host=engine.host, cas=cas))


@pytest.fixture(scope="session")
def java_image(lab: Lab) -> str:
    """An image with Debian's Java, where /app/work.jar was compiled and packed."""
    engine = lab.workshop.engine

    def make() -> str:
        rootfs = make_rootfs("bookworm-java", "openjdk-17-jre-headless,libecj-java,base-files")
        base = engine.import_rootfs(rootfs, changes=[f"ENV PATH={_JAVA.removesuffix('/java')}:/usr/bin:/bin"])
        source = (APP / "Work.java").read_bytes()
        command = json.dumps([*_COMPILE, "-source", "11", "-target", "11", "-d", "/classes", "/Work.java"])
        compiled = engine.build(
            f"FROM {base}\nADD Work.java /\nRUN {command}\nCMD [{json.dumps(_JAVA)}]\n", {"Work.java": source}
        )
        manifest = b"Manifest-Version: 1.0\nMain-Class: Work\n"
        with io.BytesIO() as out:
            with zipfile.ZipFile(out, "w") as jar:
                jar.writestr("META-INF/MANIFEST.MF", manifest)
                jar.writestr("Work.class", lab.containers.read(compiled, "/classes/Work.class"))
            files = _archived({"app/work.jar": out.getvalue(), "app/secret.txt": SECRET.encode() + b"\n"})
        image = engine.build(f'FROM {base}\nADD app.tar /\nWORKDIR /app\nCMD ["/bin/true"]\n', {"app.tar": files})
        engine.made.remove(image)
        return image

    return lab.workshop.once("java", make)


@pytest.fixture(scope="session")
def python_313_image(lab: Lab) -> str:
    """An image with Debian 13's Python."""
    engine = lab.workshop.engine

    def make() -> str:
        base = engine.import_rootfs(make_rootfs("trixie-python", "python3,base-files", suite="trixie"))
        image = engine.build(f'FROM {base}\nADD app.tar /\nWORKDIR /app\nCMD ["/bin/true"]\n', {"app.tar": _files()})
        engine.made.remove(image)
        return image

    return lab.workshop.once("python-313", make)


def _files() -> bytes:
    files = {f"app/{path.relative_to(APP)}": path.read_bytes() for path in sorted(APP.rglob("*")) if path.is_file()}
    for mode in (*MODES, "front"):
        port, fpm = str(free_port()), str(free_port())
        for name, text in {"nginx": _NGINX, "fpm": _FPM}.items():
            files[f"app/{name}-{mode}.conf"] = text.replace("PORT", port).replace("FPM", fpm).encode()
    files |= {"app/secret.txt": SECRET.encode() + b"\n", "etc/passwd": _PASSWD.encode(), "etc/group": b"www-data:x:33:\n"}
    files |= {"opt/venv/pyvenv.cfg": _VENV.encode(), "opt/venv/lib/python3.11/site-packages/installed.py": b"ANSWER = 42\n"}
    return _archived(files, links={"opt/venv/bin/python3": "/usr/bin/python3", "opt/venv/bin/python": "python3"})


def _archived(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size, info.mtime, info.mode = len(content), 1_600_000_000, 0o755 if "entry" in path else 0o644
                archive.addfile(info, io.BytesIO(content))
            for path, target in (links or {}).items():
                info = tarfile.TarInfo(path)
                info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, 1_600_000_000
                archive.addfile(info)
        return out.getvalue()
