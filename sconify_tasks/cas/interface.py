"""The interface of a CAS, as a build uses it: one implementation in-process (`embedded`), one over the network (`client`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sconify_tasks.cas.errors import SessionNotFoundError
from sconify_tasks.errors import PolicyConflictError
from sconify_tasks.policy.digest import session_hash
from sconify_tasks.policy.parse import parse_session
from sconify_tasks.policy.render import with_predecessor


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionText:
    """A session as the CAS holds it. The text holds keys and secrets."""

    name: str
    hash: str
    text: str = field(repr=False)


class Cas(Protocol):
    """A CAS, together with the identity that speaks to it.

    All methods raise UnavailableError where the CAS does not answer, VerificationError where it is not the one that was
    expected, and AccessDeniedError where its access policies say no.
    """

    @property
    def spki_hash(self) -> str:
        """SHA-256 of the CAS's public key (SPKI DER), 64 hex digits: the pin of its enclaves."""

    def create_session(self, text: str) -> str:
        """Upload a session; return its hash. PolicyConflictError where the name is taken and the newest version not named."""

    def update_session(self, text: str) -> str:
        """Upload a version that names its predecessor; return its hash. PolicyConflictError where that is not the newest."""

    def read_session(self, name: str, digest: str = "") -> SessionText:
        """Return the newest version, or the one with that hash. SessionNotFoundError where there is none."""

    def create_namespace(self, name: str) -> str:
        """Make the session without services that owns `name/…`; return its hash. A usable one is left as it is."""


def put_session(cas: Cas, text: str, *, update_if_exists: bool) -> str:
    """Upload a session whatever the CAS holds now; return the hash of what it holds then.

    An equal session (`session_hash`) is left as it is. A different one is updated where `update_if_exists` says so, else it is
    a PolicyConflictError; so is a session that somebody else changes at the same moment.
    """
    name = parse_session(text).name
    try:
        current = cas.read_session(name)
    except SessionNotFoundError:
        return cas.create_session(with_predecessor(text, ""))
    if current.hash == session_hash(text):
        return current.hash
    if not update_if_exists:
        raise PolicyConflictError(
            f"the CAS has a different session {name} already (hash {current.hash})",
            hint="choose another --name or --namespace, or allow the update",
        )
    return cas.update_session(with_predecessor(text, current.hash))
