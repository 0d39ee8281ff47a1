"""Access policies: who may read, update and create below a session. Identities are hashes of keys."""

from __future__ import annotations

import re

from sconify_tasks.cas.errors import AccessDeniedError
from sconify_tasks.errors import UsageError
from sconify_tasks.policy.model import Session

_KEY_HASH = re.compile(r"[0-9a-f]{64}")
_PEM = "-----BEGIN CERTIFICATE-----"


def check_forms(session: Session) -> None:
    """Refuse, at upload, a policy with a member that nobody could be matched against later. UsageError names it."""
    policy = session.access_policy
    for members in (policy.read, policy.update, policy.create_sessions, policy.list_sessions):
        for member in members:
            _hash_of(member, session.name)


def check_allowed(members: tuple[str, ...], *, creator: str, client: str, what: str) -> None:
    """Raise AccessDeniedError unless `client` is meant by `members`; `what` is what was to be done (`read session a/b`)."""
    for member in members:
        if member == "ANY" or (member == "CREATOR" and client == creator):
            return
        if member not in {"ANY", "CREATOR", "NONE"} and _hash_of(member, what) == client:
            return
    raise AccessDeniedError(
        f"identity {client} may not {what}",
        hint="use the identity that created it (--identity), or have its owner extend access_policy",
    )


def _hash_of(member: str, name: str) -> str:
    if member in {"ANY", "CREATOR", "NONE"} or _KEY_HASH.fullmatch(member):
        return member
    if _PEM in member:
        from cryptography import x509

        from sconify_tasks.cas.identity import spki_hash

        try:
            return spki_hash(x509.load_pem_x509_certificate(member.encode()).public_key())
        except ValueError as error:
            raise UsageError(f"access_policy of {name}: a certificate can't be read") from error
    raise UsageError(
        f"access_policy of {name}: {member[:60]!r} is not built yet",
        hint="name CREATOR, ANY, NONE, a PEM certificate, or the SHA-256 of a key's SPKI as 64 lower-case hex digits",
    )
