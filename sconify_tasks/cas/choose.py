"""Which CAS a build speaks to: the embedded one of the state folder, or the one that `--cas` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sconify_tasks.cas.identity import Identity, default_identity, load_identity
from sconify_tasks.cas.interface import Cas

if TYPE_CHECKING:
    from sconify_tasks.cas.embedded import EmbeddedCas


def open_identity(options: Mapping[str, Any], home: Path) -> Identity:
    """The identity of `--identity`, or the one kept in `~/.cas/config.json`."""
    if options["identity"]:
        return load_identity(Path(options["identity"]))
    return default_identity(home / ".cas" / "config.json")


def open_embedded_cas(options: Mapping[str, Any], *, state: Path, home: Path) -> EmbeddedCas:
    """Open the CAS of a state folder for a build, which closes it; see `embedded.open_embedded`."""
    from sconify_tasks.cas.embedded import EmbeddedCas, open_embedded

    return EmbeddedCas(service=open_embedded(state, keep=True), client=open_identity(options, home).spki_hash)


def open_remote_cas(options: Mapping[str, Any], *, home: Path, pin: str | None) -> Cas:
    """Make a client of the CAS that `--cas` names, under its pin. It is not spoken to yet."""
    from sconify_tasks.cas.client import CasClient

    return CasClient(str(options["cas"]), open_identity(options, home), pin)
