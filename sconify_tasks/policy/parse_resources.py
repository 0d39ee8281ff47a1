"""The session's images, volumes and secrets: checked for shape, and noted as not built where they ask for something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sconify_tasks.policy import fields
from sconify_tasks.policy.fields import Notes
from sconify_tasks.yaml_nodes import Node

_KINDS = (
    "ascii",
    "binary",
    "private-key",
    "public-key",
    "x509",
    "x509-ca",
    "aad-token",
    "config-fragment",
    "pgp-key",
    "jwt",
)
_SECRET_KEYS = (
    *("name", "kind", "value", "size", "export", "export_public", "import", "import_akv", "key_type", "migrate"),
    *("private_key", "issuer", "common_name", "endpoint", "dns", "san", "valid_for", "signer", "alg", "validity", "payload"),
    *("tenant_id", "client_id", "application_id", "application_secret"),
)
_UPDATE_POLICIES = ("rollback_protected", "ephemeral", "no_rollback_protection")
_VOLUME_KEYS = ("name", "files", "fspf_key", "fspf_tag", "export", "import")

Resources = tuple[Mapping[str, Any], ...]


def images(node: Node | None, notes: Notes) -> Resources:
    """Read what containers get: mounted volumes and injected files."""
    return _named(node, "images", lambda item: _image(item, notes))


def volumes(node: Node | None, notes: Notes) -> Resources:
    """Read the volumes that the session owns, exports or imports."""
    return _named(node, "volumes", lambda item: _volume(item, notes))


def secrets(node: Node | None, notes: Notes) -> Resources:
    """Read the secrets that the CAS generates, keeps or imports."""
    return _named(node, "secrets", lambda item: _secret(item, notes))


def _named(node: Node | None, what: str, check: Callable[[Node], str]) -> Resources:
    if node is None:
        return ()
    items = node.sequence(what)
    fields.distinct(((check(item), item) for item in items), what.removesuffix("s"))
    return tuple(item.data() for item in items)


def _image(node: Node, notes: Notes) -> str:
    found = node.only(("name", "volumes", "injection_files", "provide_secrets"), "an image")
    name = fields.name(fields.required(found, "name", node, "an image"), "an image's name")
    for mount in found["volumes"].sequence(f"images.{name}.volumes") if "volumes" in found else ():
        _mount(mount, name, notes)
    for file in found["injection_files"].sequence(f"images.{name}.injection_files") if "injection_files" in found else ():
        _injected(file, name, notes)
    for secret in found["provide_secrets"].sequence(f"images.{name}.provide_secrets") if "provide_secrets" in found else ():
        fields.note(notes, secret, f"provide_secrets of the image {name}")
    return name


def _mount(node: Node, image: str, notes: Notes) -> None:
    what = f"a volume of the image {image}"
    found = node.only(("name", "path", "update_policy"), what)
    fields.required(found, "name", node, what).text(f"the name of {what}")
    fields.path(fields.required(found, "path", node, what), f"the path of {what}", notes)
    if "update_policy" in found:
        fields.choice(found["update_policy"], f"update_policy of {what}", _UPDATE_POLICIES)
    fields.note(notes, node, what)


def _injected(node: Node, image: str, notes: Notes) -> None:
    what = f"an injection file of the image {image}"
    if isinstance(node.value, str):
        fields.path(node, what, notes)
    else:
        found = node.only(("path", "content", "permission"), what)
        fields.path(fields.required(found, "path", node, what), f"the path of {what}", notes)
    fields.note(notes, node, what)


def _volume(node: Node, notes: Notes) -> str:
    found = node.only(_VOLUME_KEYS, "a volume")
    name = fields.required(found, "name", node, "a volume").text("a volume's name")
    if "files" in found:
        fields.choice(found["files"], f"volumes.{name}.files", ("encrypted", "authenticated-only"))
    if "import" in found and found.keys() & {"fspf_key", "fspf_tag", "export"}:
        raise node.error(f"volumes.{name}: an imported volume has no fspf_key, fspf_tag or export")
    for key, size in (("fspf_key", 32), ("fspf_tag", 16)):
        if key in found:
            fields.hexadecimal(found[key], f"volumes.{name}.{key}", notes, size=size)
    fields.note(notes, node, f"the volume {name[:60]}")
    return name


def _secret(node: Node, notes: Notes) -> str:
    found = node.only(_SECRET_KEYS, "a secret")
    name = fields.name(fields.required(found, "name", node, "a secret"), "a secret's name")
    if "import" not in found and "import_akv" not in found:
        fields.choice(fields.required(found, "kind", node, f"the secret {name}"), f"secrets.{name}.kind", _KINDS)
    fields.note(notes, node, f"the secret {name}")
    return name
