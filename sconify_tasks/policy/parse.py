"""A session's text becomes a `Session`, or an error that names the line. Hostile input is expected: a CAS reads strangers'."""

from __future__ import annotations

import re

from sconify_tasks.errors import UsageError
from sconify_tasks.policy import fields
from sconify_tasks.policy.fields import Notes
from sconify_tasks.policy.model import Session, SessionName
from sconify_tasks.policy.parse_access import access_policy, security
from sconify_tasks.policy.parse_resources import images, secrets, volumes
from sconify_tasks.policy.parse_services import services
from sconify_tasks.yaml_nodes import Node, load

MAX_SESSION = 1 << 20
TOP_LEVEL = (
    *("name", "version", "predecessor", "namespace_hash", "salt", "creator"),
    *("access_policy", "services", "secrets", "images", "volumes", "security"),
)
_VERSION = re.compile(r"0\.3(\.(0|[1-9][0-9]?))?")


def parse_session(text: str, *, name: str = "session") -> Session:
    """Read one session; `name` stands for the text in errors. Raise UsageError for whatever is not a well-formed session."""
    if len(text) > MAX_SESSION:
        raise UsageError(f"{name}: larger than {MAX_SESSION} characters")
    root = load(text, name=name)
    found = root.only(TOP_LEVEL, "a session")
    notes: Notes = []
    for key in ("namespace_hash", "salt"):
        if key in found and not found[key].is_null:
            fields.note(notes, found[key], key)
    shared = security(found.get("security"), notes)
    session = Session(
        name=_name(fields.required(found, "name", root, "a session"), notes),
        version=_version(fields.required(found, "version", root, "a session")),
        predecessor=_predecessor(found.get("predecessor"), notes),
        services=services(found.get("services"), notes, attested=shared.attestation.mode != "none"),
        access_policy=access_policy(found.get("access_policy"), notes),
        security=shared,
        images=images(found.get("images"), notes),
        volumes=volumes(found.get("volumes"), notes),
        secrets=secrets(found.get("secrets"), notes),
        not_built=tuple(notes),
    )
    _check_images(session, found.get("services"), root)
    return session


def check_supported(session: Session) -> None:
    """Raise UsageError for the first thing that is well-formed and that this build can't act on."""
    for item in session.not_built:
        raise UsageError(f"session {session.name}, line {item.line}: {item.feature} is not built yet", hint="leave it out")


def _name(node: Node, notes: Notes) -> SessionName:
    value = fields.text(node, "name", notes)
    try:
        return SessionName(value)
    except ValueError as error:
        raise node.error(str(error)) from None


def _version(node: Node) -> str:
    value = node.text("version")
    if not _VERSION.fullmatch(value):
        raise node.error(f"version {value[:20]!r} is not known", hint='write version: "0.3"')
    return value


def _predecessor(node: Node | None, notes: Notes) -> str:
    if node is None or node.is_null:
        return ""
    return fields.hexadecimal(node, "predecessor", notes, size=32)


def _check_images(session: Session, node: Node | None, root: Node) -> None:
    # Such a service would run without the volumes and files that its author meant it to have.
    known = {str(image["name"]) for image in session.images}
    for service in session.services:
        if service.image_name and service.image_name not in known:
            raise (node or root).error(
                f"the service {service.name!r} names the image {service.image_name!r}, which is not under images"
            )
