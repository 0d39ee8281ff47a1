"""Which CAS a build speaks to: the embedded one of the state folder, or the one that `--cas` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sconify_tasks.cas.identity import Identity, default_identity, load_identity
from sconify_tasks.cas.interface import Cas


def open_identity(options: Mapping[str, Any], home: Path) -> Identity:
    """The identity of `--identity`, or the one kept in `~/.cas/config.json`."""
    if options["identity"]:
        return load_identity(Path(options["identity"]))
    return default_identity(home / ".cas" / "config.json")


def open_cas(options: Mapping[str, Any], *, state: Path, home: Path, pin: str | None) -> Cas:
    """Open the CAS under its pin. A remote one is not spoken to yet."""
    identity = open_identity(options, home)
    if options["cas"] is None:
        from sconify_tasks.cas.embedded import EmbeddedCas, open_embedded

        return EmbeddedCas(service=open_embedded(state), client=identity.spki_hash)
    from sconify_tasks.cas.client import CasClient

    return CasClient(str(options["cas"]), identity, pin)
