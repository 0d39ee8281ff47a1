"""The session as a value. `parse.py` makes it from text, `render.py` makes text; a CAS serves what is in it.

Names are those of the session language, version 0.3. A `Session` that exists is well-formed; whether this build can act
on everything in it is `parse.check_supported`'s business.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from msgspec import Struct, field

from sconify_tasks.sgx.measurement import MrEnclave

_SEGMENT = re.compile(r"[A-Za-z0-9_\-.~]{1,128}")
_MAX_NAME = 1024

Mode = Literal["hardware", "none", "maa"]

TOLERATIONS = (
    "debug-mode",
    "hyperthreading",
    "insecure-igpu",
    "software-hardening-needed",
    "aepic-leak",
    "insecure-configuration",
    "outdated-tcb",
    "maa-managed-tcb",
    "local-attestation-trust-cas-tcb",
)
ALL_ADVISORIES = ("*",)
CREATOR = ("CREATOR",)


class SessionName(str):
    """`NAMESPACE/…/SESSION`: one or more segments of `[A-Za-z0-9_-.~]{1,128}` joined by `/`; never `.` or `..`."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError for anything else."""
        segments = value.split("/")
        if len(value) > _MAX_NAME or not all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in segments):
            raise ValueError(f"not a session name: {value[:90]!r} (segments of A-Z a-z 0-9 _ - . ~ joined by /)")
        return super().__new__(cls, value)

    @property
    def namespace(self) -> SessionName | None:
        """The session that owns this one's name; None at the top level."""
        parent = self.rpartition("/")[0]
        return SessionName(parent) if parent else None


class Signer(Struct, frozen=True, kw_only=True):
    """Who signed the enclave. `isvsvn` (exact) excludes the bounds."""

    mrsigner: MrEnclave
    isvprodid: int
    isvsvn: int | None = None
    isvsvn_min: int | None = None
    isvsvn_max: int | None = None


class Variant(Struct, frozen=True, kw_only=True):
    """What a quote must show: one of the measurements (when there are any) *and* the signer (when there is one)."""

    mrenclaves: tuple[MrEnclave, ...] = ()
    signer: Signer | None = None


class Service(Struct, frozen=True, kw_only=True):
    """One service of a session. `fspf_*` are empty together when nothing is protected.

    `command` is the text with shell-like quoting, or the words themselves; see `command.words`.
    """

    name: str
    image_name: str = ""
    mrenclaves: tuple[MrEnclave, ...] = ()
    attestation: tuple[Variant, ...] = ()
    command: str | tuple[str, ...] = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    pwd: str = ""
    fspf_key: str = ""
    fspf_tag: str = ""
    fspf_path: str = ""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every way to be attested; a quote needs to satisfy one. `mrenclaves` is the older spelling of one variant."""
        older = (Variant(mrenclaves=self.mrenclaves),) if self.mrenclaves else ()
        return older + self.attestation


class AccessPolicy(Struct, frozen=True, kw_only=True):
    """Who may do what: `CREATOR`, `ANY`, `NONE` (the last two stand alone), a key hash or a PEM certificate.

    Always complete: `create_sessions` is `update`, and `list_sessions` is `read`, where the text does not say.
    """

    read: tuple[str, ...] = CREATOR
    update: tuple[str, ...] = CREATOR
    create_sessions: tuple[str, ...] = CREATOR
    list_sessions: tuple[str, ...] = CREATOR


class Attestation(Struct, frozen=True, kw_only=True):
    """How services are attested. `ignore_advisories` is `ALL_ADVISORIES` for `"*"`."""

    mode: Mode = "hardware"
    tolerate: tuple[str, ...] = ()
    ignore_advisories: tuple[str, ...] = ()


class Security(Struct, frozen=True, kw_only=True):
    """The session's security section."""

    attestation: Attestation = field(default_factory=Attestation)


class NotBuilt(Struct, frozen=True, kw_only=True):
    """Something well-formed that this build can't act on yet, and where it stands."""

    line: int
    feature: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One version of a session. A namespace is a session without services.

    `images`, `volumes` and `secrets` are plain JSON-able values, checked for shape. `predecessor` is 64 hex digits or empty.
    """

    name: SessionName
    version: str = "0.3"
    predecessor: str = ""
    services: tuple[Service, ...] = ()
    access_policy: AccessPolicy = dataclasses.field(default_factory=AccessPolicy)
    security: Security = dataclasses.field(default_factory=Security)
    images: tuple[Mapping[str, Any], ...] = ()
    volumes: tuple[Mapping[str, Any], ...] = ()
    secrets: tuple[Mapping[str, Any], ...] = ()
    not_built: tuple[NotBuilt, ...] = dataclasses.field(default=(), compare=False)

    def service(self, name: str) -> Service | None:
        """Find the service of that name; None where there is none."""
        return next((service for service in self.services if service.name == name), None)
