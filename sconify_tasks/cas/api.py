"""The client API as a function: a request's values in, a status and JSON out. `http_port` puts it on the network.

    POST /v1/sessions              YAML          201 {"hash": HEX}
    POST /v1/namespaces/NAME                     201 {"hash": HEX}
    GET  /v1/sessions/NAME[?hash=HEX]            200 {"name": …, "hash": HEX, "session": YAML}
    GET  /v1/version                             200 {"name": "sconify-cas", "api": 1, "spki": HEX}
    GET  /v1/attestation                         200 {"quote": …, "collateral": …, "root": PEM}

A refusal is {"error": {"message": …, "hint": …}} with status 400, 403, 404, 405, 409, 413 or 500.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from sconify_tasks.cas.errors import AccessDeniedError, SessionNotFoundError
from sconify_tasks.cas.frames import printable
from sconify_tasks.cas.service import CasService
from sconify_tasks.errors import PolicyConflictError, SconifyError, UsageError

API_VERSION = 1
MAX_BODY = 1 << 20
SESSIONS = "/v1/sessions"
NAMESPACES = "/v1/namespaces"
VERSION = "/v1/version"
ATTESTATION = "/v1/attestation"

# The first class that fits decides, so subclasses stand before their bases.
_STATUS: tuple[tuple[type[SconifyError], int], ...] = (
    (SessionNotFoundError, 404),
    (AccessDeniedError, 403),
    (PolicyConflictError, 409),
    (UsageError, 400),
    (SconifyError, 500),
)


class ApiCall(Struct, frozen=True, kw_only=True):
    """One request. `client` is the hash of the key that this very connection has proved: never anything that was sent in it."""

    method: str
    path: str
    digest: str = ""
    body: bytes = b""
    client: str


class Reply(Struct, frozen=True, kw_only=True):
    """A status and the JSON object that goes with it."""

    status: int
    value: Mapping[str, Any]


def refusal(status: int, message: str, hint: str = "") -> Reply:
    """Make a reply that says why not."""
    return Reply(status=status, value={"error": {"message": printable(message), "hint": printable(hint)}})


def answer(service: CasService, call: ApiCall) -> Reply:
    """Carry one request out. Every error of ours becomes a status; anything else is a bug and propagates."""
    try:
        return _route(service, call)
    except SconifyError as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return refusal(status, error.message, error.hint)


def _route(service: CasService, call: ApiCall) -> Reply:
    get: dict[str, Callable[[], Mapping[str, Any]]] = {
        VERSION: lambda: {"name": "sconify-cas", "api": API_VERSION, "spki": service.spki_hash},
        ATTESTATION: service.attestation,
    }
    if call.path in get:
        return Reply(status=200, value=get[call.path]()) if call.method == "GET" else _not_allowed(call)
    if call.path == SESSIONS:
        return _create(service, call) if call.method == "POST" else _not_allowed(call)
    kind, name = _split(call.path)
    if kind == SESSIONS:
        return _read(service, call, name) if call.method == "GET" else _not_allowed(call)
    if kind == NAMESPACES:
        if call.method != "POST":
            return _not_allowed(call)
        return Reply(status=201, value={"hash": service.create_namespace(name, call.client)})
    return refusal(404, f"the CAS has nothing at {call.path[:120]!r}")


def _split(path: str) -> tuple[str, str]:
    for kind in (SESSIONS, NAMESPACES):
        if path.startswith(kind + "/"):
            return kind, path[len(kind) + 1 :]
    return "", ""


def _create(service: CasService, call: ApiCall) -> Reply:
    try:
        text = call.body.decode("utf-8")
    except UnicodeDecodeError:
        return refusal(400, "the session is not UTF-8 text")
    return Reply(status=201, value={"hash": service.create_session(text, call.client)})


def _read(service: CasService, call: ApiCall, name: str) -> Reply:
    found = service.read_session(name, call.client, call.digest)
    return Reply(status=200, value={"name": found.name, "hash": found.hash, "session": found.text})


def _not_allowed(call: ApiCall) -> Reply:
    return refusal(405, f"{call.method[:20]!r} is not done at {call.path[:120]!r}")
