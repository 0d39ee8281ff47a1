"""A session becomes text, in the shape and order of the documented tool. `parse_session(render(x))` is x again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from sconify_tasks.errors import UsageError
from sconify_tasks.policy import command as commands
from sconify_tasks.policy.model import (
    ALL_ADVISORIES,
    AccessPolicy,
    Attestation,
    Security,
    Service,
    Session,
    SessionName,
    Signer,
    Variant,
)
from sconify_tasks.policy.yaml_text import Quoted, dump, values
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.yaml_nodes import load

_TCB_TOLERATIONS = ("hyperthreading", "insecure-igpu", "outdated-tcb", "software-hardening-needed", "insecure-configuration")

# The first version of the session language that knows signers.
_SIGNERS_SINCE = "0.3.10"


class SessionParameters(Struct, frozen=True, kw_only=True):
    """What a build knows about the session of one image.

    `name` is NAMESPACE/SESSION. `environment` comes from `environment.service_environment`. The three `fspf_*` are given
    together, or not at all when nothing is protected. No `pwd` is `/`.
    `attested` is false for --disable-session-security-attestation. A `signer` is attested in place of the measurements.
    """

    name: SessionName
    service: str
    mrenclaves: tuple[MrEnclave, ...]
    command: str | tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    pwd: str = ""
    fspf_key: str = ""
    fspf_tag: str = ""
    fspf_path: str = ""
    allow_tcb_vulnerabilities: bool = False
    allow_debug_mode: bool = False
    attested: bool = True
    signer: Signer | None = None

    def session(self) -> Session:
        """Make the session that these parameters describe."""
        if self.attested and not self.mrenclaves:
            raise UsageError(f"the session {self.name} has no measurement", hint="sign the binary first")
        image = f"{self.service}_image"
        service = Service(
            name=self.service,
            image_name=image,
            mrenclaves=self.mrenclaves if self.attested and self.signer is None else (),
            attestation=(Variant(signer=self.signer),) if self.attested and self.signer is not None else (),
            command=self.command if isinstance(self.command, str) else commands.join(self.command),
            environment={"SCONE_MODE": "hw", **self.environment},
            pwd=self.pwd or "/",
            fspf_key=self.fspf_key,
            fspf_tag=self.fspf_tag,
            fspf_path=self.fspf_path,
        )
        return Session(
            name=self.name,
            version="0.3" if self.signer is None else _SIGNERS_SINCE,
            services=(service,),
            images=({"name": image},),
            security=Security(attestation=self._attestation()),
        )

    def _attestation(self) -> Attestation:
        tolerate = _TCB_TOLERATIONS if self.allow_tcb_vulnerabilities else ()
        return Attestation(
            mode="hardware" if self.attested else "none",
            tolerate=(*tolerate, "debug-mode") if self.allow_debug_mode else tolerate,
            ignore_advisories=ALL_ADVISORIES if self.allow_tcb_vulnerabilities else (),
        )


def render(what: SessionParameters | Session) -> str:
    """Write a session's text."""
    session = what.session() if isinstance(what, SessionParameters) else what
    return dump(_session(session))


def namespace(name: SessionName) -> Session:
    """Make the session that owns a namespace: no services, everything for its creator alone."""
    return Session(name=name)


def with_predecessor(text: str, predecessor: str) -> str:
    """Return the session's text as an update of the version with this hash (64 hex digits); "" makes it a first version."""
    top = values(load(text, name="session"))
    if not isinstance(top, dict) or "name" not in top:
        raise UsageError("session: a session has no 'name'")
    link = {"predecessor": predecessor} if predecessor else {}
    rest = {key: value for key, value in top.items() if key not in {"name", "version", "predecessor"}}
    return dump({"name": top["name"], "version": top.get("version", Quoted("0.3")), **link, **rest})


def _session(session: Session) -> dict[str, Any]:
    top: dict[str, Any] = {"name": session.name, "version": Quoted(session.version)}
    if session.predecessor:
        top["predecessor"] = session.predecessor
    top["access_policy"] = _access(session.access_policy, is_namespace=not session.services)
    if session.services:
        top["services"] = [_service(service) for service in session.services]
    for key in ("secrets", "volumes", "images"):
        if items := getattr(session, key):
            top[key] = list(items)
    if security := _attestation(session.security.attestation):
        top["security"] = {"attestation": security}
    return top


def _access(policy: AccessPolicy, *, is_namespace: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"read": policy.read, "update": policy.update}
    if is_namespace or policy.create_sessions != policy.update:
        found["create_sessions"] = policy.create_sessions
    if policy.list_sessions != policy.read:
        found["list_sessions"] = policy.list_sessions
    return found


def _service(service: Service) -> dict[str, Any]:
    command = Quoted(service.command) if isinstance(service.command, str) else [Quoted(word) for word in service.command]
    found: dict[str, Any] = {
        "name": service.name,
        "image_name": service.image_name,
        "mrenclaves": service.mrenclaves,
        "attestation": [_variant(variant) for variant in service.attestation],
        "command": command,
        "environment": dict(service.environment),
        "pwd": service.pwd,
        "fspf_key": service.fspf_key,
        "fspf_tag": service.fspf_tag,
        "fspf_path": service.fspf_path,
    }
    return {key: value for key, value in found.items() if value or (key == "command" and value == [])}


def _variant(variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {"mrenclave": variant.mrenclaves} if variant.mrenclaves else {}
    return found | ({"signer": _signer(variant.signer)} if variant.signer else {})


def _signer(signer: Signer) -> dict[str, Any]:
    keys = ("mrsigner", "isvprodid", "isvsvn", "isvsvn_min", "isvsvn_max")
    return {key: value for key in keys if (value := getattr(signer, key)) is not None}


def _attestation(attestation: Attestation) -> dict[str, Any]:
    found: dict[str, Any] = {} if attestation.mode == "hardware" else {"mode": attestation.mode}
    if attestation.tolerate:
        found["tolerate"] = attestation.tolerate
    if attestation.ignore_advisories:
        every = attestation.ignore_advisories == ALL_ADVISORIES
        found["ignore_advisories"] = Quoted("*") if every else attestation.ignore_advisories
    return found
