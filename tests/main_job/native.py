"""The native image that all tests here start from, and what is secret in it."""

from __future__ import annotations

import base64
import io
import json
import secrets
import tarfile
from dataclasses import dataclass
from pathlib import Path

from parts.engine import Engine

APP = Path(__file__).parent / "app"
MARKERS = 20
_LARGE = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """A Debian image with Python and a small API; its base; and random words that nobody may find."""

    base: str
    image: str
    markers: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps({"base": self.base, "image": self.image, "markers": self.markers})

    @classmethod
    def from_json(cls, text: str) -> Native:
        found = json.loads(text)
        return cls(base=found["base"], image=found["image"], markers=tuple(found["markers"]))


def make_native(engine: Engine, rootfs: Path) -> Native:
    """Import the root file system, and build upon it as a user's Dockerfile would: CMD in shell form."""
    markers = tuple(secrets.token_hex(16) for _ in range(MARKERS))
    base = engine.import_rootfs(rootfs, changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin"], name=engine.name("debian"))
    dockerfile = f"""\
FROM {base}
ENV API_MODE=confidential API_PORT=8080 API_TOKEN={markers[0]}
ENV API_PASSWORD="with spaces {markers[1]}"
LABEL maintainer={markers[2]}
ADD native.tar /
WORKDIR /app
EXPOSE 8080
CMD python3 -B /app/rest_api.py --token={markers[3]}
"""
    return Native(base=base, image=engine.build(dockerfile, {"native.tar": _files(markers)}), markers=markers)


def _files(markers: tuple[str, ...]) -> bytes:
    """/app and /tls: scripts, secrets of all sizes and kinds, links."""
    filler = secrets.token_bytes(_LARGE)
    secret = {
        "app/secret.txt": markers[4].encode(),
        "app/other.txt": markers[5].encode(),
        "app/first.bin": markers[6].encode() + filler,
        "app/last.bin": filler + markers[7].encode(),
        # Across the border of two chunks of 64 KiB.
        "app/middle.bin": filler[: 65536 - 8] + markers[8].encode() + filler[:5000],
        "app/repeated.txt": (markers[9] + "\n").encode() * 2000,
        "app/.hidden": markers[10].encode(),
        "app/deep/er/and/deeper/file": markers[11].encode(),
        "app/package/__init__.py": f"SECRET = {markers[12]!r}\n".encode(),
        "app/package/data.json": json.dumps({"secret": markers[13]}).encode(),
        "tls/api.key": f"-----BEGIN PRIVATE KEY-----\n{markers[14]}\n-----END PRIVATE KEY-----\n".encode(),
        "tls/api.crt": markers[15].encode(),
        "app/base64.txt": base64.b64encode(markers[16].encode()),
        "app/name with spaces.txt": markers[17].encode(),
        "tls/private/ca.key": markers[18].encode(),
    }
    scripts = {f"app/{path.name}": path.read_bytes() for path in sorted(APP.glob("*.py"))}
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            folders = (
                "app",
                "app/deep",
                "app/deep/er",
                "app/deep/er/and",
                "app/deep/er/and/deeper",
                "app/package",
                "app/empty",
                "tls",
                "tls/private",
            )
            for folder in folders:
                _add(archive, folder, kind=tarfile.DIRTYPE, mode=0o755)
            for path, content in {
                **secret,
                **scripts,
                "app/greeting.txt": b"hello from a protected file",
                "app/nothing": b"",
            }.items():
                _add(archive, path, content, mode=0o644)
            _add(archive, "app/tool.sh", f"#!/bin/sh\necho {markers[19]}\n".encode(), mode=0o755)
            _add(archive, "app/tool.py", b"#!/usr/bin/python3\nprint(open('/app/greeting.txt').read())\n", mode=0o755)
            _add(archive, "app/link.txt", kind=tarfile.SYMTYPE, target="secret.txt", mode=0o777)
            _add(archive, "app/hard.txt", kind=tarfile.LNKTYPE, target="app/secret.txt", mode=0o644)
        return out.getvalue()


def _add(
    archive: tarfile.TarFile, path: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int
) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode, info.size, info.mtime = kind, target, mode, len(content), 1_600_000_000
    archive.addfile(info, io.BytesIO(content))
