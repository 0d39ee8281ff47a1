"""A CAS over the network. The channel is TLS 1.3 under a pinned key: names and dates of certificates mean nothing.

The pin is compared after the handshake and before a byte of a request is sent; the handshake has then proved that the
other end holds the key. Of us it has learned our public key and nothing else.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import re
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sconify_tasks.cas.api import ATTESTATION, MAX_BODY, NAMESPACES, SESSIONS
from sconify_tasks.cas.errors import AccessDeniedError, SessionNotFoundError
from sconify_tasks.cas.frames import printable
from sconify_tasks.cas.identity import Identity, certificate_spki_hash
from sconify_tasks.cas.interface import SessionText
from sconify_tasks.errors import PolicyConflictError, SconifyError, UnavailableError, UsageError, VerificationError

DEFAULT_PORT = 8081
TIMEOUT_SECONDS = 30.0
_MAX_REPLY = 8 << 20
_REFUSALS: dict[int, type[SconifyError]] = {
    400: UsageError,
    403: AccessDeniedError,
    404: SessionNotFoundError,
    409: PolicyConflictError,
    413: UsageError,
}
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class CasClient:
    """A `Cas` at `address` (`host`, `host:port`, `[v6]:port`). `pin` is the SPKI hash it must prove; `attest` can find it.

    Without a pin every request is refused, unless `unattested` says that any CAS at that address will do: the key that it
    shows first is then kept.
    """

    address: str
    identity: Identity = field(repr=False)
    pin: str | None = None
    unattested: bool = False
    timeout: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        """Refuse a pin that could never match."""
        if self.pin is not None and not _HASH.fullmatch(self.pin):
            raise UsageError(
                f"not the key of a CAS: {self.pin[:80]!r}", hint="--cas-key takes what `sconify-cas identity` prints"
            )

    @property
    def spki_hash(self) -> str:
        """The pin; without one, whatever key the CAS shows (only where `unattested` allows that)."""
        if self.pin is None:
            self._check_pinned()
            self._request("GET", "/v1/version")
        assert self.pin is not None
        return self.pin

    def attest(self, roots: tuple[bytes, ...], *, now: datetime, allow_debug: bool) -> str:
        """Verify the CAS's quote against trusted roots (DER), pin its key from now on, and return the key's SPKI hash.

        A pin that was given must match as well. Raises VerificationError.
        """
        from sconify_tasks.cas.attestation import check_attestation
        from sconify_tasks.sgx.verify import QuotePolicy

        found, _, document = self._exchange("GET", ATTESTATION, b"")
        policy = QuotePolicy(allow_debug=allow_debug)
        try:
            check_attestation(document, found, roots, now, policy)
        except VerificationError as error:
            raise VerificationError(f"CAS {self.address} is not attested: {error.message}", hint=error.hint) from error
        self.pin = found
        return found

    def create_session(self, text: str) -> str:
        """See `Cas`."""
        return self._hash(self._request("POST", SESSIONS, text.encode()))

    def update_session(self, text: str) -> str:
        """See `Cas`."""
        from sconify_tasks.policy.parse import parse_session

        session = parse_session(text)
        if not session.predecessor:
            raise UsageError(
                f"session {session.name}: an update names its predecessor", hint="add `predecessor:` and the newest hash"
            )
        return self.create_session(text)

    def read_session(self, name: str, digest: str = "") -> SessionText:
        """See `Cas`."""
        value = self._request("GET", f"{SESSIONS}/{quote(name)}" + (f"?hash={quote(digest)}" if digest else ""))
        text = value.get("session")
        if not isinstance(text, str):
            raise self._strange("no session in its reply")
        return SessionText(name=name, hash=self._hash(value), text=text)

    def create_namespace(self, name: str) -> str:
        """See `Cas`."""
        return self._hash(self._request("POST", f"{NAMESPACES}/{quote(name)}"))

    def _request(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        self._check_pinned()
        if len(body) > MAX_BODY:
            raise UsageError(f"the session is larger than {MAX_BODY} bytes")
        found, status, value = self._exchange(method, path, body)
        if status >= 400:  # noqa: PLR2004 - HTTP
            raise self._refusal(status, value)
        self.pin = found
        return value

    def _check_pinned(self) -> None:
        if self.pin is None and not self.unattested:
            raise VerificationError(
                f"CAS {self.address} has not been attested",
                hint="give its key (--cas-key), or a root it can be attested with (--cas-root)",
            )

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[str, int, dict[str, Any]]:
        """One request on one connection: the key it proved, the status, the JSON."""
        connection = _PinnedConnection(self)
        try:
            connection.request(method, path, body, {"Connection": "close"})
            response = connection.getresponse()
            content = response.read(_MAX_REPLY + 1)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"CAS {self.address} does not answer: {error or type(error).__name__}",
                hint="check --cas, and that sconify-cas serve runs there",
            ) from error
        finally:
            connection.close()
        try:
            value = json.loads(content) if len(content) <= _MAX_REPLY else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._strange("its reply is not a JSON object")
        return connection.spki_hash, response.status, value

    def _refusal(self, status: int, value: dict[str, Any]) -> SconifyError:
        error = value.get("error")
        said = error if isinstance(error, dict) else {}
        message, hint = (printable(str(said.get(key) or "")[:2000]) for key in ("message", "hint"))
        return _REFUSALS.get(status, UnavailableError)(f"CAS {self.address}: {message or f'status {status}'}", hint=hint)

    def _hash(self, value: dict[str, Any]) -> str:
        digest = value.get("hash")
        if not isinstance(digest, str) or not _HASH.fullmatch(digest):
            raise self._strange("no hash in its reply")
        return digest

    def _strange(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"CAS {self.address} speaks another language: {what}", hint="is it a sconify-cas of this release?"
        )


class _PinnedConnection(http.client.HTTPSConnection):
    """Compares the key of the other end before anything is sent."""

    def __init__(self, cas: CasClient) -> None:
        host, port = split_address(cas.address)
        super().__init__(host, port, context=_context(cas.identity), timeout=cas.timeout)
        self._pin = cas.pin
        self._address = cas.address
        self.spki_hash = ""

    def connect(self) -> None:
        super().connect()
        try:
            self.spki_hash = certificate_spki_hash(self.sock.getpeercert(binary_form=True) or b"")
        except ValueError as error:
            self.close()
            raise VerificationError(f"CAS {self._address} shows a certificate that can't be read") from error
        if self._pin is not None and not hmac.compare_digest(self.spki_hash, self._pin):
            self.close()
            raise VerificationError(
                f"CAS {self._address} has another key than expected: got {self.spki_hash}, expected {self._pin}",
                hint="check --cas and --cas-key; if the CAS was set up anew, images built for the old one must be built again",
            )


def split_address(address: str) -> tuple[str, int]:
    """Take host and port apart; the port is 8081 where none is given. UsageError for what is no address."""
    host, separator, port = address.rpartition(":")
    if not separator or host.count("[") != host.count("]") or (":" in host and not host.startswith("[")):
        host, port = address, str(DEFAULT_PORT)
    if not host.strip("[]") or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):  # noqa: PLR2004
        raise UsageError(f"not an address of a CAS: {address!r}", hint="write HOST or HOST:PORT")
    return host.strip("[]"), int(port)


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is what is verified, in `connect`
    # `ssl` loads keys from files only; this one has no name and never touches a disk.
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(identity.pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise UsageError(f"the identity can't be used for TLS: {error.reason}", hint="use a P-256 key") from error
    finally:
        os.close(descriptor)
    return context
