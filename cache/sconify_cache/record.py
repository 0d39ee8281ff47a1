"""Records: what an action yielded, sealed with a key of the project.

A sealed record is JSON text `{"mac":"HEX64","record":CANONICAL}`; the MAC is BLAKE3, keyed, over exactly the canonical
bytes. Those hold the action key, so a record that another key wrote, that was changed, or that was moved under another
action's name opens to nothing: a miss, wherever it came from. Nothing is parsed before its MAC was found good.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, Self

from msgspec import Struct, field

from sconify_cache.digest import Digest
from sconify_cache.keys import JSON, Action, canonical, content_id

VERSION: Final = 1
_HEAD, _MIDDLE, _TAIL = '{"mac":"', '","record":', "}"
_BODY: Final = len(_HEAD) + 64 + len(_MIDDLE)


class Record(Struct, frozen=True, kw_only=True):
    """What one action yielded: blobs by name, small facts, and the components its key was made of.

    `secret` records stay on this machine, like their blobs. They hold keyed ids instead of values all the same.
    """

    key: Digest
    step: str
    outputs: Mapping[str, Digest] = field(default_factory=dict)
    facts: Mapping[str, JSON] = field(default_factory=dict)
    components: Mapping[str, JSON] = field(default_factory=dict)
    secret: bool = False

    @classmethod
    def of(
        cls, action: Action, *, outputs: Mapping[str, Digest], facts: Mapping[str, JSON] | None = None, secret: bool = False
    ) -> Self:
        """Make the record of an action that has run, with its key and its components."""
        components = action.components
        return cls(key=action.key, step=action.step, outputs=outputs, facts=facts or {}, components=components, secret=secret)

    def as_json(self) -> dict[str, JSON]:
        """Its fields, to be sealed."""
        return {
            "key": self.key,
            "step": self.step,
            "outputs": dict(self.outputs),
            "facts": self.facts,
            "components": self.components,
            "secret": self.secret,
        }


class Records(Protocol):
    """Where records are kept. Anything wrong with a record makes it a miss; a failing disk is a StoreError."""

    def lookup(self, key: Digest) -> Record | None:
        """Return the record of an action, or None. Whether its blobs still exist is for the caller to ask the store."""

    def record(self, record: Record) -> None:
        """Keep a record; replaces an earlier one of the same key. Atomic."""


def seal(body: Mapping[str, JSON], mac_key: bytes) -> str:
    """Canonical JSON of `body` with its MAC in front, as JSON text."""
    text = canonical(body)
    return f"{_HEAD}{content_id(mac_key, text)}{_MIDDLE}{text.decode()}{_TAIL}"


def unseal(text: object, mac_key: bytes) -> dict[str, Any] | None:
    """Return the body of a sealed text, or None for anything that `seal` did not make under this key."""
    if not isinstance(text, str) or not (text.startswith(_HEAD) and text[_BODY - len(_MIDDLE) : _BODY] == _MIDDLE):
        return None
    try:
        body = text[_BODY : -len(_TAIL)].encode()
        mac = text[len(_HEAD) : _BODY - len(_MIDDLE)].encode("ascii")
    except UnicodeEncodeError:
        return None
    if not (text.endswith(_TAIL) and hmac.compare_digest(mac, content_id(mac_key, body).encode())):
        return None
    # Authentic, so ours: but perhaps of another version, which the callers check.
    parsed = json.loads(body)
    return parsed if isinstance(parsed, dict) else None


def peek(text: object) -> dict[str, Any] | None:
    """Return the body of a sealed text of whatever key, unauthenticated: to decide what may be cleaned away, nothing else."""
    if not isinstance(text, str) or not (text.startswith(_HEAD) and text[_BODY - len(_MIDDLE) : _BODY] == _MIDDLE):
        return None
    try:
        parsed = json.loads(text[_BODY : -len(_TAIL)])
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def seal_record(record: Record, mac_key: bytes) -> str:
    """Text to be stored under `record.key`."""
    return seal({"v": VERSION, "kind": "action", **record.as_json()}, mac_key)


def unseal_record(text: object, mac_key: bytes, key: Digest) -> Record | None:
    """Return the record that was sealed for `key`, else None."""
    body = unseal(text, mac_key)
    if body is None or (body.get("v"), body.get("kind"), body.get("key")) != (VERSION, "action", key):
        return None
    return parse_record(body)


def parse_record(body: Mapping[str, Any]) -> Record:
    """Return the record in an authentic body."""
    return Record(
        key=Digest(body["key"]),
        step=body["step"],
        outputs={name: Digest(digest) for name, digest in body["outputs"].items()},
        facts=body["facts"],
        components=body["components"],
        secret=body["secret"],
    )
