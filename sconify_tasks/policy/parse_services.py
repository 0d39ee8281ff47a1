"""The session's services: what runs, with what, and what a quote must show before it gets it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sconify_tasks.policy import fields
from sconify_tasks.policy.command import check_command
from sconify_tasks.policy.fields import Notes
from sconify_tasks.policy.model import Service, Signer, Variant
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.yaml_nodes import Node

_KEYS = (
    *("name", "image_name", "mrenclaves", "attestation", "command", "environment", "pwd"),
    *("fspf_key", "fspf_tag", "fspf_path", "fspf_update_policy", "platforms", "one_time_password_shared_secret"),
)
_FSPF = {"fspf_key", "fspf_tag", "fspf_path"}
_UPDATE_POLICIES = ("rollback_protected_reinitializable", "no_rollback_protection")
_MAX_16_BIT = 0xFFFF


def services(node: Node | None, notes: Notes, *, attested: bool) -> tuple[Service, ...]:
    """Read the services. `attested` is false under `mode: none`, where a service needs no measurement."""
    if node is None:
        return ()
    items = node.sequence("services")
    found = tuple(_service(item, notes, attested=attested) for item in items)
    fields.distinct(((service.name, item) for service, item in zip(found, items, strict=True)), "service")
    return found


def _service(node: Node, notes: Notes, *, attested: bool) -> Service:
    found = node.only(_KEYS, "a service")
    name = fields.name(fields.required(found, "name", node, "a service"), "a service's name")
    what = f"services.{name}"
    before = len(notes)
    mrenclaves = _measurements(found.get("mrenclaves"), f"{what}.mrenclaves", notes)
    attestation = _variants(found.get("attestation"), f"{what}.attestation", notes)
    if attested and not mrenclaves and not attestation and len(notes) == before:
        raise node.error(
            f"the service {name!r} has neither mrenclaves nor attestation: anyone could be it",
            hint="name its measurement, or say `mode: none` under security.attestation",
        )
    key, tag, path = _fspf(node, found, what, notes)
    for other in ("platforms", "one_time_password_shared_secret"):
        if other in found:
            fields.note(notes, found[other], f"{what}.{other}")
    return Service(
        name=name,
        image_name=fields.name(found["image_name"], f"{what}.image_name") if "image_name" in found else "",
        mrenclaves=mrenclaves,
        attestation=attestation,
        command=_command(found.get("command"), f"{what}.command", notes),
        environment=_environment(found.get("environment"), f"{what}.environment", notes),
        pwd=fields.path(found["pwd"], f"{what}.pwd", notes) if "pwd" in found else "",
        fspf_key=key,
        fspf_tag=tag,
        fspf_path=path,
    )


def _fspf(node: Node, found: Mapping[str, Node], what: str, notes: Notes) -> tuple[str, str, str]:
    given = _FSPF & found.keys()
    if "fspf_update_policy" in found:
        policy = fields.choice(found["fspf_update_policy"], f"{what}.fspf_update_policy", _UPDATE_POLICIES)
        if policy != _UPDATE_POLICIES[0]:
            fields.note(notes, found["fspf_update_policy"], f"{what}.fspf_update_policy {policy}")
    if not given:
        return "", "", ""
    if given != _FSPF:
        raise node.error(f"{what} needs all of fspf_key, fspf_tag and fspf_path, and has no {', '.join(sorted(_FSPF - given))}")
    return (
        fields.hexadecimal(found["fspf_key"], f"{what}.fspf_key", notes, size=32),
        fields.hexadecimal(found["fspf_tag"], f"{what}.fspf_tag", notes, size=16),
        fields.path(found["fspf_path"], f"{what}.fspf_path", notes),
    )


def _command(node: Node | None, what: str, notes: Notes) -> str | tuple[str, ...]:
    if node is None:
        return ""
    if isinstance(node.value, str):
        value: str | tuple[str, ...] = fields.text(node, what, notes)
    else:
        value = tuple(fields.text(item, f"a word of {what}", notes) for item in node.sequence(what))
    if feature := check_command(value, error=node.error):
        fields.note(notes, node, f"{feature} in {what}")
    return value


def _environment(node: Node | None, what: str, notes: Notes) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for key, item in (node.mapping(what) if node is not None else {}).items():
        if not key or "=" in key or "\0" in key:
            raise item.error(f"{what}: {key[:60]!r} can't be the name of a variable")
        values[key] = "" if item.is_null else fields.text(item, f"{what}.{key[:60]}", notes)
    return MappingProxyType(values)


def _measurements(node: Node | None, what: str, notes: Notes) -> tuple[MrEnclave, ...]:
    if node is None:
        return ()
    found = []
    for item in (node,) if isinstance(node.value, str) and not node.is_null else node.sequence(what):
        if isinstance(item.value, str) and item.value.startswith("$$SCONE::"):
            fields.text(item, what, notes)
        else:
            found.append(fields.measurement(item, what))
    return tuple(found)


def _variants(node: Node | None, what: str, notes: Notes) -> tuple[Variant, ...]:
    if node is None:
        return ()
    items = node.sequence(what) if isinstance(node.value, tuple) else (node,)
    return tuple(_variant(item, what, notes) for item in items)


def _variant(node: Node, what: str, notes: Notes) -> Variant:
    found = node.only(("mrenclave", "signer"), what)
    before = len(notes)
    measured = _measurements(found.get("mrenclave"), f"{what}.mrenclave", notes)
    signer = _signer(found["signer"], f"{what}.signer") if "signer" in found else None
    # An empty list must not read as "any measurement".
    if (not measured and signer is None and len(notes) == before) or (
        "mrenclave" in found and not measured and len(notes) == before
    ):
        raise node.error(f"{what}: a variant without mrenclave or signer would let anyone in")
    return Variant(mrenclaves=measured, signer=signer)


def _signer(node: Node, what: str) -> Signer:
    found = node.only(("mrsigner", "isvprodid", "isvsvn", "isvsvn_min", "isvsvn_max"), what)
    numbers = {key: _number(item, f"{what}.{key}") for key, item in found.items() if key != "mrsigner"}
    if "isvsvn" in numbers and numbers.keys() & {"isvsvn_min", "isvsvn_max"}:
        raise node.error(f"{what}: isvsvn excludes isvsvn_min and isvsvn_max")
    if numbers.get("isvsvn_min", 0) > numbers.get("isvsvn_max", _MAX_16_BIT):
        raise node.error(f"{what}: isvsvn_min is above isvsvn_max")
    fields.required(found, "isvprodid", node, what)
    return Signer(
        mrsigner=fields.measurement(fields.required(found, "mrsigner", node, what), f"{what}.mrsigner"),
        isvprodid=numbers["isvprodid"],
        isvsvn=numbers.get("isvsvn"),
        isvsvn_min=numbers.get("isvsvn_min"),
        isvsvn_max=numbers.get("isvsvn_max"),
    )


def _number(node: Node, what: str) -> int:
    value = node.integer(what)
    if not 0 <= value <= _MAX_16_BIT:
        raise node.error(f"{what} must be 0 to {_MAX_16_BIT}, not {value}")
    return value
