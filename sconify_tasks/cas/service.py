"""The CAS itself: what is stored for whom, and who gets it. The server and the embedded CAS are both this class.

Clients are hashes of keys that somebody else has proved (TLS, or the embedded identity). Enclaves are quotes, bound to the
channel they came over. Nothing here blocks on the network; the store is the only thing that touches the disk.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sconify_tasks.cas import access
from sconify_tasks.cas.attestation import own_report
from sconify_tasks.cas.cas_key import CasKey
from sconify_tasks.cas.errors import SessionNotFoundError
from sconify_tasks.cas.frames import RefusedError
from sconify_tasks.cas.interface import SessionText
from sconify_tasks.cas.store import Sessions, SessionStore, StoredSession
from sconify_tasks.cas.trust import Trust
from sconify_tasks.errors import PolicyConflictError, SconifyError, UsageError
from sconify_tasks.policy.command import split
from sconify_tasks.policy.digest import session_hash
from sconify_tasks.policy.model import Service, Session, SessionName, Signer, Variant
from sconify_tasks.policy.parse import check_supported, parse_session
from sconify_tasks.policy.render import namespace, render
from sconify_tasks.sgx.platform import SimulatedPlatform
from sconify_tasks.sgx.quote import QuoteError, ReportBody
from sconify_tasks.sgx.verify import QuotePolicy, VerifiedQuote

EXPORTER_LABEL = b"EXPORTER-sconify-attest-1"
EXPORTER_LENGTH = 32
_BINDING = b"sconify/attest/1"
_REFUSALS = {"debug": "debug-not-tolerated", "tcb": "tcb-not-tolerated"}
_PARSED_SESSIONS = 64


def channel_report_data(exporter: bytes) -> bytes:
    """Make the report data that binds a quote to the TLS channel with this exporter value (docs/formats.md section 8.2)."""
    return hashlib.sha256(_BINDING + exporter).digest() + bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CasService:
    """One CAS. Safe for threads. `now` is asked whenever a quote is judged."""

    store: SessionStore
    key: CasKey
    platform: SimulatedPlatform
    trust: Trust
    now: Callable[[], datetime]
    _parse: Callable[[str], Session] = field(
        default_factory=lambda: lru_cache(maxsize=_PARSED_SESSIONS)(parse_session), repr=False
    )

    @property
    def spki_hash(self) -> str:
        """The pin: SHA-256 of the identity key's SPKI."""
        return self.key.spki_hash

    def create_session(self, text: str, client: str) -> str:
        """Store a session, or its next version where the text names the newest one as predecessor. Returns its hash.

        UsageError for a text that can't be served, AccessDeniedError, and PolicyConflictError where the name is taken, the
        predecessor is not the newest version, or the namespace does not exist.
        """
        session = parse_session(text)
        check_supported(session)
        access.check_forms(session)
        digest = session_hash(text)
        with self.store.writing() as sessions:
            current = sessions.newest(session.name)
            if current is None:
                self._check_new(sessions, session, client)
            else:
                self._check_update(current, session, client)
            return sessions.append(name=session.name, digest=digest, creator=client, text=text).hash

    def update_session(self, text: str, client: str) -> str:
        """Store the next version of a session that exists. Raises as `create_session` does."""
        session = parse_session(text)
        if not session.predecessor:
            raise UsageError(
                f"session {session.name}: an update names its predecessor", hint="add `predecessor:` and the newest hash"
            )
        return self.create_session(text, client)

    def read_session(self, name: str, client: str, digest: str = "") -> SessionText:
        """Return the newest version, or the one with that hash, to whom the *newest* version lets read."""
        _session_name(name)
        newest = self.store.newest(name)
        if newest is None:
            raise SessionNotFoundError(f"the CAS has no session {name}")
        readers = self._parse(newest.text).access_policy.read
        access.check_allowed(readers, creator=newest.creator, client=client, what=f"read session {name}")
        found = self.store.version(name, digest) if digest else newest
        if found is None:
            raise SessionNotFoundError(f"session {name} has no version {digest[:64]}")
        return SessionText(name=name, hash=found.hash, text=found.text)

    def create_namespace(self, name: str, client: str) -> str:
        """Make a namespace for this client's sessions; where it exists and he may create in it, nothing happens."""
        current = self.store.newest(_session_name(name))
        if current is None:
            try:
                return self.create_session(render(namespace(SessionName(name))), client)
            except PolicyConflictError:
                current = self.store.newest(_session_name(name))
                if current is None:
                    raise
                # Somebody was faster: images of one repository share a namespace, and are uploaded at the same time.
        self._check_owner(current, client)
        return current.hash

    def service_config(self, config_id: str, quote: bytes | None, exporter: bytes) -> dict[str, Any]:
        """Answer an enclave (docs/formats.md section 8.2). Raises RefusedError with one of its codes."""
        name, _, service_name = config_id.rpartition("/")
        stored, session = self._served_session(name)
        service = session.service(service_name)
        if service is None:
            known = ", ".join(item.name for item in session.services) or "none: it is a namespace"
            raise RefusedError(f"session {name} has no service {service_name!r} (it has {known})", code="unknown-service")
        if session.security.attestation.mode != "none":
            self._attest(session, service, quote, exporter)
        return {"session": {"name": stored.name, "hash": stored.hash}, "service": _delivered(service)}

    def attestation(self) -> dict[str, str]:
        """Make a fresh quote over this CAS's identity key, with all that is needed to check it."""
        now = self.now()
        quote = self.platform.quote(own_report(self.spki_hash))
        return {
            "quote": base64.b64encode(quote).decode(),
            "collateral": self.platform.collateral(now).to_json(),
            "root": self.platform.root_pem,
        }

    def _check_new(self, sessions: Sessions, session: Session, client: str) -> None:
        if session.predecessor:
            raise PolicyConflictError(f"session {session.name} names a predecessor, and the CAS has no version of it")
        if session.name.namespace is None:
            return
        parent = sessions.newest(session.name.namespace)
        if parent is None:
            raise PolicyConflictError(
                f"namespace {session.name.namespace} does not exist",
                hint="create it first (sconify_image --create-namespace does)",
            )
        self._check_owner(parent, client)

    def _check_owner(self, parent: StoredSession, client: str) -> None:
        policy = self._parse(parent.text)
        if policy.services:
            raise PolicyConflictError(
                f"{parent.name} is a session with services, not a namespace", hint="choose another --namespace"
            )
        what = f"create sessions in namespace {parent.name}"
        access.check_allowed(policy.access_policy.create_sessions, creator=parent.creator, client=client, what=what)

    def _check_update(self, current: StoredSession, session: Session, client: str) -> None:
        held = self._parse(current.text)
        what = f"update session {session.name}"
        access.check_allowed(held.access_policy.update, creator=current.creator, client=client, what=what)
        if not session.predecessor:
            raise PolicyConflictError(f"session {session.name} exists already", hint="update it, or choose another --name")
        if session.predecessor != current.hash:
            raise PolicyConflictError(
                f"session {session.name} has moved on: its newest version is not {session.predecessor}",
                hint="read the newest version and start again from there",
            )
        if bool(held.services) is not bool(session.services):
            raise PolicyConflictError(f"{session.name} can't change between a namespace and a session with services")

    def _served_session(self, name: str) -> tuple[StoredSession, Session]:
        try:
            stored = self.store.newest(SessionName(name))
        except ValueError:
            stored = None
        if stored is None:
            raise RefusedError(
                f"the CAS has no session {name[:200]!r}",
                code="unknown-session",
                hint="check SCONE_CONFIG_ID (NAMESPACE/SESSION/SERVICE), and that the session was uploaded to this CAS",
            )
        return stored, self._parse(stored.text)

    def _attest(self, session: Session, service: Service, quote: bytes | None, exporter: bytes) -> None:
        if quote is None:
            raise RefusedError(
                f"session {session.name} wants a quote, and none was sent",
                code="quote-required",
                hint="start a LAS (sconify-cas serve runs one) and name it in SCONE_LAS_ADDR",
            )
        attestation = session.security.attestation
        policy = QuotePolicy(
            allow_debug="debug-mode" in attestation.tolerate,
            tolerate=frozenset(attestation.tolerate),
            ignore_advisories=frozenset(attestation.ignore_advisories),
        )
        try:
            verified: VerifiedQuote = self.trust.verify(quote, self.now(), policy)
        except QuoteError as error:
            raise RefusedError(error.message, code=_REFUSALS.get(error.code, "bad-quote"), hint=error.hint) from error
        if not hmac.compare_digest(verified.report.report_data, channel_report_data(exporter)):
            raise RefusedError(
                "the quote was made for another connection", code="channel-binding", hint="ask the LAS for a fresh quote"
            )
        if not any(_satisfies(verified.report, variant) for variant in service.variants):
            raise _unexpected(verified.report, service, session)


def _session_name(name: str) -> SessionName:
    try:
        return SessionName(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _satisfies(report: ReportBody, variant: Variant) -> bool:
    if not variant.mrenclaves and variant.signer is None:
        return False
    if variant.mrenclaves and report.mr_enclave.hex() not in variant.mrenclaves:
        return False
    return variant.signer is None or _signed_by(report, variant.signer)


def _signed_by(report: ReportBody, signer: Signer) -> bool:
    lowest = signer.isvsvn if signer.isvsvn is not None else signer.isvsvn_min or 0
    highest = signer.isvsvn if signer.isvsvn is not None else signer.isvsvn_max
    return (
        report.mr_signer.hex() == signer.mrsigner
        and report.isv_prod_id == signer.isvprodid
        and report.isv_svn >= lowest
        and (highest is None or report.isv_svn <= highest)
    )


def _unexpected(report: ReportBody, service: Service, session: Session) -> RefusedError:
    expected = sorted({measurement for variant in service.variants for measurement in variant.mrenclaves})
    signers = sorted({variant.signer.mrsigner for variant in service.variants if variant.signer})
    wanted = " or ".join([*expected, *(f"an enclave of signer {signer}" for signer in signers)]) or "nothing at all"
    return RefusedError(
        f"unexpected enclave measurement: got {report.mr_enclave.hex()} (signer {report.mr_signer.hex()}), "
        f"expected {wanted} for service {session.name}/{service.name}",
        code="unexpected-measurement",
        hint="run the image that this session was built with, or upload the session of this image",
    )


def _delivered(service: Service) -> dict[str, Any]:
    delivered: dict[str, Any] = {
        "command": list(_command(service)),
        "environment": dict(service.environment),
        "pwd": service.pwd or "/",
    }
    if service.fspf_path:
        delivered |= {"fspf_path": service.fspf_path, "fspf_key": service.fspf_key, "fspf_tag": service.fspf_tag}
    return delivered


def _command(service: Service) -> tuple[str, ...]:
    try:
        return split(service.command)
    except SconifyError as error:
        raise RefusedError(error.message, code="internal", hint=error.hint) from error
