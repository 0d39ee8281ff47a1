"""The root key and everything derived from it. Keys leave this room only as values handed to the step that uses them.

Derivation is HKDF-SHA256 (RFC 5869) with one label per purpose, so that no two purposes share a key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sconify_cache.folder import store_error
from sconify_tasks.errors import UsageError
from sconify_tasks.hkdf import hkdf
from sconify_tasks.named_file import is_anothers, open_named

ROOT_KEY_BYTES = 32


def key_id(key: bytes) -> str:
    """Name of a key: part of action keys and indexes, tells nothing about the key."""
    return hkdf(key, info=b"sconify/key-id/1", length=16).hex()


def _parse_root_key(text: bytes, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != ROOT_KEY_BYTES:
        raise UsageError(f"{where} is not a root key", hint="it holds 64 hex digits and nothing else (openssl rand -hex 32)")
    return key


def load_root_key(state: Path, *, given: str | None = None, file: Path | None = None) -> bytes:
    """Return the root key: as given, else of `file`, else of the state folder, where it is made once (mode 0600).

    Raises UsageError for a malformed key, one that others may read, and another user's (not root's).
    """
    if given is not None:
        return _parse_root_key(given.encode(), "the root key in the environment")
    path = file or state / "root.key"
    try:
        return _parse_root_key(_read_private(path), str(path))
    except FileNotFoundError:
        if file is not None:
            raise UsageError(f"root key file {file} does not exist", hint="openssl rand -hex 32 makes one") from None
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    _create_once(path, os.urandom(ROOT_KEY_BYTES).hex().encode() + b"\n")
    return _parse_root_key(_read_private(path), str(path))


def known_root_key(state: Path, *, given: str | None = None, file: Path | None = None) -> bytes | None:
    """As `load_root_key`, but None where there is none yet: nothing is made."""
    if given is None and not (file or state / "root.key").exists():
        return None
    return load_root_key(state, given=given, file=file)


def _read_private(path: Path) -> bytes:
    file = open_named(path)
    if file is None:
        raise UsageError(f"{path} is not a regular file", hint="a root key is read from a file of 64 hex digits")
    with file:
        found = os.fstat(file.fileno())
        if is_anothers(found):
            raise UsageError(f"{path} belongs to user {found.st_uid}", hint="use a root key of your own, or of root's")
        if found.st_mode & 0o077:
            raise UsageError(f"{path} is readable by others", hint=f"chmod 600 {path}")
        return file.read(4096)


def _create_once(path: Path, content: bytes) -> None:
    """Create `path` whole or not at all; two builds that start together agree on the first one's key."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise store_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Derived keys of one project. `repr` shows none of them."""

    root: bytes = field(repr=False)
    project: str
    _known: dict[tuple[str, int], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fspf_key(self, *, repository: str, epoch: int) -> bytes:
        """Key of the protected files of every image that is written to `repository` (TO without its tag)."""
        return self._derived(f"sconify/fspf/1\0{self.project}\0{repository}\0{epoch}")

    def fspf_key_id(self, *, repository: str, epoch: int) -> str:
        """Name of that key: part of action keys, tells nothing about the key."""
        return key_id(self.fspf_key(repository=repository, epoch=epoch))

    def content_id_key(self) -> bytes:
        """Key of the keyed BLAKE3 content digests that stand in trees and records."""
        return self._derived(f"sconify/content-id/1\0{self.project}")

    def component_key(self) -> bytes:
        """Key of the digests that stand for secret values in action keys and records."""
        return self._derived(f"sconify/component/1\0{self.project}")

    def record_key(self) -> bytes:
        """Key that authenticates records of the action cache."""
        return self._derived(f"sconify/record/1\0{self.project}")

    def namespace(self, *, repository: str) -> str:
        """Default namespace of the sessions of `repository`: stable, and not to be guessed from the name."""
        return "ns-" + self._derived(f"sconify/namespace/1\0{self.project}\0{repository}", length=8).hex()

    def _derived(self, label: str, *, length: int = 32) -> bytes:
        """One derivation a label: keys and records ask for the same few keys again and again."""
        known = self._known.get((label, length))
        if known is None:
            known = self._known[label, length] = hkdf(self.root, info=label.encode(), length=length)
        return known
