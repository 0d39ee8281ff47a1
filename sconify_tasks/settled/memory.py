"""The file that notes what is settled: one for each place that a build is started from, in the cache folder, mode 0600.

First line: a MAC (HMAC-SHA256, hex) of the file's name and all that follows; then JSON. The key is the root key's, by
HKDF-Expand alone (RFC 5869, 3.3: a root key is uniformly random), so that nobody without it can have a build skipped.
Whatever is wrong with the file, it is as if there were none.
"""

from __future__ import annotations

import hmac
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sconify_tasks.settled.record import Origin, SettledImage
from sconify_tasks.settled.signature import Signature

_VERSION: Final = 1
_LABEL: Final = b"sconify/settled/1"
_HEX: Final = 64
_LARGEST: Final = 256 << 20


def settled_key(root: bytes) -> bytes:
    """The key of MACs, of the files' names and of what stands in them for secret values."""
    return hmac.digest(root, _LABEL + b"\x01", "sha256")


def keyed(key: bytes, value: object) -> str:
    """A digest of JSON that tells nothing of the value to who lacks the key."""
    return hmac.digest(key, b"value\0" + json.dumps(value, sort_keys=True).encode("utf-8", "surrogateescape"), "sha256").hex()


@dataclass(slots=True, kw_only=True)
class Memory:
    """What was noted. `program` stands for the program itself and for surroundings that are the same for all images."""

    program: str
    origin: Origin | None = None
    shared: dict[str, Signature | None] = field(default_factory=dict)
    images: dict[str, SettledImage] = field(default_factory=dict)


def memory_file(folder: Path, key: bytes, place: object) -> Path:
    """Where what is known of a place lies: a folder with its project file, or a whole command line."""
    return folder / "settled" / keyed(key, place)[:32]


def load_memory(file: Path, key: bytes, program: str) -> Memory | None:
    """Return what was noted by this very program in these surroundings; None where there is nothing, or nothing authentic."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST)
    except OSError:
        return None
    mac, body = content[:_HEX], content[_HEX + 1 :]
    if not hmac.compare_digest(mac, _mac(file, key, body)):
        return None
    version, known_program, origin, shared, images = json.loads(body)
    if (version, known_program) != (_VERSION, program):
        return None
    return Memory(
        program=program,
        origin=None if origin is None else Origin.of_json(origin),
        shared=shared,
        images={name: SettledImage.of_json(values) for name, values in images.items()},
    )


def _mac(file: Path, key: bytes, body: bytes) -> bytes:
    """Over the name too: what is known of one place, moved to another's, says nothing there."""
    return hmac.digest(key, b"file\0" + file.name.encode() + b"\0" + body, "sha256").hex().encode()


def save_memory(file: Path, key: bytes, memory: Memory) -> None:
    """Write it whole or not at all. That it can't be written is no failure: the next run then looks at everything."""
    document: list[Any] = [
        _VERSION,
        memory.program,
        None if memory.origin is None else memory.origin.to_json(),
        memory.shared,
        {name: image.to_json() for name, image in memory.images.items()},
    ]
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    temporary = file.with_name(f"{file.name}.{os.urandom(8).hex()}")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
                stream.write(_mac(file, key, body) + b"\n" + body)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
