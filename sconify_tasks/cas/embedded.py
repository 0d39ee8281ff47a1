"""The CAS in-process, on a state folder: the default of a build. A server on the same folder serves what it stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from sconify_tasks.cas import cas_key
from sconify_tasks.cas.interface import SessionText
from sconify_tasks.cas.service import CasService
from sconify_tasks.cas.store import SessionStore
from sconify_tasks.cas.trust import Trust
from sconify_tasks.errors import StoreError
from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.platform import open_platform
from sconify_tasks.sgx.private_file import create_private, read_private

FOLDER = "cas"
_SEALING_KEY = 32


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_embedded(
    state_dir: Path,
    *,
    roots: tuple[bytes, ...] = (),
    bundles: tuple[Collateral, ...] = (),
    now: Callable[[], datetime] = _utc_now,
    keep: bool = False,
) -> CasService:
    """Open the CAS of a state folder; its keys are made when there are none. `roots` (DER) and `bundles` extend its trust.

    See `SessionStore` for `keep`.
    """
    folder = state_dir / FOLDER
    platform = open_platform(folder, now())
    return CasService(
        store=SessionStore(path=folder / "sessions.sqlite", key=_sealing_key(folder), keep=keep),
        key=cas_key.open_cas_key(folder),
        platform=platform,
        trust=Trust(own_root=platform.root_der, own=platform, roots=roots, bundles=bundles),
        now=now,
    )


def embedded_pin(state_dir: Path) -> str | None:
    """Return the SPKI hash of the folder's CAS, cheaply and without writing; None where there is no CAS yet."""
    return cas_key.pin(state_dir / FOLDER)


def _sealing_key(folder: Path) -> bytes:
    path = folder / "store.key"
    key = read_private(path)
    if key is None:
        if (folder / "sessions.sqlite").exists():
            raise StoreError(f"{path} is missing, and the sessions can't be read without it", hint="restore it from a backup")
        key = create_private(path, os.urandom(_SEALING_KEY))
    if len(key) != _SEALING_KEY:
        raise StoreError(
            f"{path} is damaged ({len(key)} bytes)", hint="restore it from a backup: sessions can't be read without it"
        )
    return key


class EmbeddedCas(Struct, frozen=True, kw_only=True):
    """An in-process CAS, bound to the identity that uses it: a `Cas`."""

    service: CasService
    client: str

    @property
    def spki_hash(self) -> str:
        """See `Cas`."""
        return self.service.spki_hash

    def create_session(self, text: str) -> str:
        """See `Cas`."""
        return self.service.create_session(text, self.client)

    def update_session(self, text: str) -> str:
        """See `Cas`."""
        return self.service.update_session(text, self.client)

    def read_session(self, name: str, digest: str = "") -> SessionText:
        """See `Cas`."""
        return self.service.read_session(name, self.client, digest)

    def create_namespace(self, name: str) -> str:
        """See `Cas`."""
        return self.service.create_namespace(name, self.client)

    def close(self) -> None:
        """Let go of the database; it is opened again when it is needed."""
        self.service.store.close()
