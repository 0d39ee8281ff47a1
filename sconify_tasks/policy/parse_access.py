"""The session's `access_policy` and `security`."""

from __future__ import annotations

import re

from sconify_tasks.policy import fields
from sconify_tasks.policy.fields import Notes
from sconify_tasks.policy.model import CREATOR, TOLERATIONS, AccessPolicy, Attestation, Security
from sconify_tasks.yaml_nodes import Node

_ALONE = ("ANY", "NONE")
_KEY_HASH = re.compile(r"[0-9A-Za-z]{32,88}")  # hex or base58
_CERTIFICATE = re.compile(r"\s*-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\s]{1,16384}-----END CERTIFICATE-----\s*")
_AT_LEAST = re.compile(r"require-at-least-[1-9][0-9]{0,2}")
_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")
_OTHER_SECURITY = ("trusted_scone_qe_pubkeys", "must_be_sgx_local", "one_time_password_shared_secret")
_MAA = ("url", "certificates")


def access_policy(node: Node | None, notes: Notes) -> AccessPolicy:
    """Read who may do what. What is not said follows the language's defaults."""
    if node is None:
        return AccessPolicy()
    found = node.only(("read", "update", "create_sessions", "list_sessions"), "access_policy")
    read = _members(found.get("read"), "read", notes)
    update = _members(found.get("update"), "update", notes)
    return AccessPolicy(
        read=read or CREATOR,
        update=update or CREATOR,
        create_sessions=_members(found.get("create_sessions"), "create_sessions", notes) or update or CREATOR,
        list_sessions=_members(found.get("list_sessions"), "list_sessions", notes) or read or CREATOR,
    )


def _members(node: Node | None, key: str, notes: Notes) -> tuple[str, ...]:
    if node is None:
        return ()
    what = f"access_policy.{key}"
    items = (node,) if isinstance(node.value, str) and not node.is_null else node.sequence(what)
    if not items:
        raise node.error(f"{what} is empty", hint="write [NONE] to allow nobody")
    members = tuple(_member(item, what, key, notes) for item in items)
    for alone in _ALONE:
        if alone in members and len(members) > 1:
            raise node.error(f"{what}: {alone} must stand alone")
    return members


def _member(node: Node, what: str, key: str, notes: Notes) -> str:
    if not isinstance(node.value, str):
        return _governance(node, what, key, notes)
    value = fields.text(node, what, notes)
    if value in {"CREATOR", *_ALONE} or value.startswith("$$SCONE::"):
        return value
    if _KEY_HASH.fullmatch(value) or _CERTIFICATE.fullmatch(value):
        return value
    raise node.error(
        f"{what}: {value[:60]!r} names nobody",
        hint="allowed: CREATOR, ANY, NONE, the hash of a key, or a certificate in PEM",
    )


def _governance(node: Node, what: str, key: str, notes: Notes) -> str:
    found = node.mapping(what)
    word = next(iter(found), "")
    if len(found) != 1 or not (word in {"signer", "require-all"} or _AT_LEAST.fullmatch(word)):
        raise node.error(f"{what}: a mapping here is one of signer, require-all, require-at-least-N")
    if key in {"read", "list_sessions"}:
        raise node.error(f"{what}: {word} is allowed for update and create_sessions only")
    if word == "signer":
        fields.text(found[word], f"{what}.signer", notes)
    else:
        for item in found[word].sequence(f"{what}.{word}"):
            _member(item, f"{what}.{word}", key, notes)
    fields.note(notes, node, f"{word} in {what}")
    return word


def security(node: Node | None, notes: Notes) -> Security:
    """Read the security section."""
    if node is None:
        return Security()
    found = node.only(("attestation", "singleton_enclaves", "service_access_token"), "security")
    if "singleton_enclaves" in found and found["singleton_enclaves"].boolean("security.singleton_enclaves"):
        fields.note(notes, found["singleton_enclaves"], "security.singleton_enclaves")
    if "service_access_token" in found:
        fields.note(notes, found["service_access_token"], "security.service_access_token")
    return Security(attestation=_attestation(found["attestation"], notes)) if "attestation" in found else Security()


def _attestation(node: Node, notes: Notes) -> Attestation:
    what = "security.attestation"
    found = node.only(("mode", "tolerate", "ignore_advisories", *_MAA, *_OTHER_SECURITY), what)
    mode = fields.choice(found["mode"], f"{what}.mode", ("hardware", "none", "maa")) if "mode" in found else "hardware"
    for key in _OTHER_SECURITY:
        if key in found:
            fields.note(notes, found[key], f"{what}.{key}")
    tolerate = _tolerate(found.get("tolerate"), f"{what}.tolerate")
    if mode == "maa":
        _maa(node, tolerate, what, notes)
    elif any(key in found for key in _MAA):
        raise node.error(f"{what}: url and certificates belong to mode maa")
    return Attestation(
        mode="none" if mode == "none" else "maa" if mode == "maa" else "hardware",
        tolerate=tolerate,
        ignore_advisories=_advisories(found.get("ignore_advisories"), f"{what}.ignore_advisories"),
    )


def _maa(node: Node, tolerate: tuple[str, ...], what: str, notes: Notes) -> None:
    url = node.mapping(what).get("url")
    if url is None or not url.text(f"{what}.url").startswith("https://"):
        raise node.error(f"{what}: mode maa needs an https:// url")
    if "maa-managed-tcb" not in tolerate:
        raise node.error(f"{what}: mode maa needs maa-managed-tcb under tolerate")
    fields.note(notes, node, "attestation by Microsoft Azure (mode maa)")


def _tolerate(node: Node | None, what: str) -> tuple[str, ...]:
    if node is None:
        return ()
    # The language's own example of Azure attestation writes `debug`.
    words = ["debug-mode" if item.value == "debug" else fields.choice(item, what, TOLERATIONS) for item in node.sequence(what)]
    return tuple(dict.fromkeys(words))


def _advisories(node: Node | None, what: str) -> tuple[str, ...]:
    """`"*"` stands for all of them. It is taken without debug-mode too: the documented tool writes such sessions."""
    if node is None:
        return ()
    items = (node,) if isinstance(node.value, str) and not node.is_null else node.sequence(what)
    words = tuple(dict.fromkeys(item.text(what) for item in items))
    for word, item in zip(words, items, strict=False):
        if not _ADVISORY.fullmatch(word) and words != ("*",):
            raise item.error(f"{what}: {word[:60]!r} is no advisory", hint='allowed: INTEL-SA-NNNNN, or "*" alone')
    return words
