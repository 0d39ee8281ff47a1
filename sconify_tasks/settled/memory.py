"""The file that notes what is settled: one for each place that a build is started from, in the cache folder, mode 0600.

First line: a MAC (HMAC-SHA256, hex) of the file's name and all that follows (`sconify_tasks.settled.form`). The key is the
root key's, by HKDF-Expand alone (RFC 5869, 3.3: a root key is uniformly random), so that nobody without it can have a build
skipped. Whatever is wrong with the file, it is as if there were none.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from sconify_tasks.named_file import open_named
from sconify_tasks.settled.form import Memory, of_bytes, to_bytes

_LABEL: Final = b"sconify/settled/1"
_HEX: Final = 64
_LARGEST: Final = 256 << 20
_OLD: Final = 7 * 24 * 3600.0


def settled_key(root: bytes) -> bytes:
    """The key of MACs, of the files' names and of what stands in them for secret values."""
    return hmac.digest(root, _LABEL + b"\x01", "sha256")


def keyed(key: bytes, value: object) -> str:
    """A digest of JSON that tells nothing of the value to who lacks the key."""
    return hmac.digest(key, b"value\0" + json.dumps(value, sort_keys=True).encode("utf-8", "surrogateescape"), "sha256").hex()


def memory_file(folder: Path, key: bytes, place: object) -> Path:
    """Where what is known of a place lies: a folder with its project file, or a whole command line."""
    return folder / "settled" / keyed(key, place)[:32]


def load_memory(file: Path, key: bytes, program: str) -> Memory | None:
    """Return what was noted by this very program in these surroundings; None where there is nothing, or nothing authentic."""
    try:
        stream = open_named(file)
        if stream is None:
            return None
        with stream:
            content = stream.read(_LARGEST)
    except OSError:
        return None
    mac, body = content[:_HEX], content[_HEX + 1 :]
    return of_bytes(body, program) if hmac.compare_digest(mac, _mac(file, key, body)) else None


def _mac(file: Path, key: bytes, body: bytes) -> bytes:
    """Over the name too: what is known of one place, moved to another's, says nothing there."""
    return hmac.digest(key, b"file\0" + file.name.encode() + b"\0" + body, "sha256").hex().encode()


def save_memory(file: Path, key: bytes, memory: Memory) -> None:
    """Write it whole or not at all. That it can't be written is no failure: the next run then looks at everything."""
    body = to_bytes(memory)
    temporary = file.with_name(f"{file.name}.{os.urandom(8).hex()}")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
                stream.write(_mac(file, key, body) + b"\n" + body)
            temporary.replace(file)
            _drop_old(file.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _drop_old(folder: Path) -> None:
    """Remove what was noted so long ago that nobody goes by it: every command line leaves a file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - _OLD:
                Path(entry.path).unlink(missing_ok=True)
