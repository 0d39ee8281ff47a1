"""The native image that is converted: Debian with Python, large layers of many files, and the application on top.

The same content as a folder (`dir:`) and as an image of an engine (`docker:`). Contents are pseudo-random, equal on every
machine, and do not compress.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = ["/bin/sh", "-c", "python3 -B /app/main.py"]
BINARY = "/usr/bin/python3"
# What is copied or encrypted of the image; the reference takes the same.
TAKEN = ("/app", "/usr/lib/python3.11", "/usr/bin/python3.11")
# Images of the engine that have it are removed at the end: stages that a builder leaves without a name, too.
MADE_HERE = "sconify.benchmark=1"
CHANGING = "data/file-100.bin"
_POOL = 32 << 20
_APP_FILES, _APP_BYTES = 200, 20 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Filler:
    """A layer that nobody selects: it makes the image large."""

    name: str
    files: int
    size: int


FILLERS = (Filler(name="vendor", files=22_000, size=620 << 20), Filler(name="assets", files=6_000, size=240 << 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Where the native image is: `folder` with its config beside it, and the application's variants to be put in."""

    folder: Path
    contexts: Path
    files: int
    size: int


def make_folder(rootfs_tar: Path, into: Path, *, scale: float) -> Native:
    """Unpack the root file system, add the fillers (times `scale`) and the application."""
    folder, contexts = into / "native", into / "contexts"
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(rootfs_tar), "-C", str(folder)], check=True)
    pool = random.Random(20).randbytes(_POOL)
    for filler in FILLERS:
        count = max(1, int(filler.files * scale))
        _fill(folder / "opt" / filler.name, count, int(filler.size * scale), pool)
    _fill(folder / "app" / "data", _APP_FILES - 1, _APP_BYTES, pool)
    (folder / "app" / "main.py").write_text('print("the application")\n')
    config = {"architecture": _architecture(), "os": "linux", "config": {"Cmd": COMMAND, "WorkingDir": "/app", "Env": ["A=b"]}}
    folder.with_name("native.json").write_text(json.dumps(config))
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Native(folder=folder, contexts=contexts, files=len(sizes), size=sum(sizes))


def change_one_file(native: Native, number: int) -> None:
    """Give one file of the application another content of the same size."""
    path = native.folder / "app" / CHANGING
    path.write_bytes(random.Random(number).randbytes(path.stat().st_size))


def make_stack(engine: Any, rootfs_tar: Path, native: Native) -> str:
    """Everything below the application, as an image: the imported root file system and one layer a filler."""
    lowest = engine.import_rootfs(rootfs_tar, name=engine.name("rootfs"))
    copies = [f"COPY {filler.name} /opt/{filler.name}" for filler in FILLERS]
    text = "\n".join([f"FROM {lowest}", f"LABEL {MADE_HERE}", *copies]) + "\n"
    return build(engine, text, native.folder / "opt", name=engine.name("stack"))


def make_image(engine: Any, stack: str, native: Native, name: str) -> str:
    """The native image with the application as it is now. The name moves from the one before."""
    text = f"FROM {stack}\nCOPY . /app\nWORKDIR /app\nENV A=b\nCMD {json.dumps(COMMAND)}\n"
    return build(engine, text, native.folder / "app", name=name)


def build(engine: Any, dockerfile: str, context: Path, *, name: str) -> str:
    """Build with the legacy builder, which every engine has."""
    command = ["docker", "-H", engine.host, "build", "--quiet", "--force-rm", "--tag", name, "--file", "-", str(context)]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, input=dockerfile, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the native image can't be built: {done.stderr[-2000:]}")
    return name


def reference_dockerfile(image: str, tools: str) -> str:
    """Three stages: take the files, tar and hash them, put them into an image of their own. Nothing is encrypted."""
    tree = "/taken"
    taken = [f"COPY --from=native {path} {tree}{path}" for path in TAKEN]
    lines = [
        f"FROM {image} AS native",
        f"FROM {tools} AS work",
        f"LABEL {MADE_HERE}",
        *taken,
        f"RUN tar -C {tree} -cf /taken.tar . && sha256sum /taken.tar",
        "FROM scratch",
        f"LABEL {MADE_HERE}",
        f"COPY --from=work {tree} /",
        f"CMD {json.dumps(COMMAND)}",
    ]
    return "\n".join(lines) + "\n"


def _fill(folder: Path, files: int, size: int, pool: bytes) -> None:
    """Many small files and a few large ones: a tenth of the files holds half of the bytes."""
    large = max(1, files // 10)
    sizes = [size // 2 // large] * large + [size // 2 // max(1, files - large)] * (files - large)
    for number, length in enumerate(sizes):
        path = folder / f"file-{number}.bin" if files < 1000 else folder / f"{number % 199}" / f"file-{number}.bin"  # noqa: PLR2004
        path.parent.mkdir(parents=True, exist_ok=True)
        at = number * 7919 % (_POOL - min(length, _POOL - 1))
        head = b"%s %d\n" % (folder.name.encode(), number)
        body = pool[at : at + length]
        while len(body) < length:
            body += pool[: length - len(body)]
        path.write_bytes((head + body)[:length])


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
