"""Keys: what a cached action's name is made of.

An action key is the BLAKE3 of the RFC 8785 canonical JSON of {step, version, tool, inputs, options}. Equal actions have
equal keys on every machine; golden keys under tests/golden hold the scheme still. Only JSON that has one canonical form
everywhere is let in: no floats, no integers beyond 2^53, no strings that are not Unicode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import BinaryIO, TypeAlias

from msgspec import Struct, field

from sconify_cache.digest import Digest
from sconify_cache.errors import SconifyError

JSON: TypeAlias = "bool | int | str | list[JSON] | tuple[JSON, ...] | Mapping[str, JSON] | None"
_ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
_SAFE = 2**53 - 1
_DEEPEST = 64
_BUFFER = 1 << 17
_KEY_BYTES = 32


class NotCanonicalError(SconifyError, ValueError):
    """A value that has no canonical JSON. The message names its place and type, never the value: it may be secret."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place or 'value'}: {reason}", hint="keys hold objects, lists, strings, integers, booleans and null")


class Action(Struct, frozen=True, kw_only=True):
    """One step about to run. `inputs` maps names to digests, `tool` names what does the work (a version, a digest)."""

    step: str
    version: int
    tool: JSON = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def components(self) -> dict[str, JSON]:
        """What the key is made of, to be kept in the record for `explain`."""
        return {
            "step": self.step,
            "version": self.version,
            "tool": self.tool,
            "inputs": dict(self.inputs),
            "options": dict(self.options),
        }

    @property
    def key(self) -> Digest:
        """The action key. Raises NotCanonicalError."""
        return facts_digest(self.components)


def canonical(value: JSON) -> bytes:
    """RFC 8785 canonical JSON. Raises NotCanonicalError for what JSON, or a reader in another language, can't hold."""
    plain = _plain(value, "", 0)
    # For integers and ASCII the C encoder gives the same bytes, ten times as fast: only floats (none here), the order of
    # names beyond ASCII, and nothing else sets RFC 8785 apart from it. A property test holds the two equal.
    text = _ENCODE(plain)
    if text.isascii():
        return text.encode("ascii")
    import rfc8785

    return rfc8785.dumps(plain)


def facts_digest(value: JSON) -> Digest:
    """BLAKE3 of the canonical JSON of facts that are not secret."""
    from blake3 import blake3

    return Digest(blake3(canonical(value)).hexdigest())


def content_id(key: bytes, data: bytes | memoryview) -> Digest:
    """Keyed BLAKE3 of content that must not be guessed from its id: protected files, secret values. `key` is 32 bytes."""
    from blake3 import blake3

    return Digest(blake3(data, key=_checked(key)).hexdigest())


def content_id_of(key: bytes, stream: BinaryIO) -> Digest:
    """`content_id` of what is left in a stream, in constant memory."""
    from blake3 import blake3

    hasher = blake3(key=_checked(key))
    while piece := stream.read(_BUFFER):
        hasher.update(piece)
    return Digest(hasher.hexdigest())


def secret_id(key: bytes, value: JSON) -> Digest:
    """Stand-in for a secret option's value in keys and records. Use another key than for contents."""
    return content_id(key, canonical(value))


def _checked(key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        message = f"a BLAKE3 key has {_KEY_BYTES} bytes, not {len(key)}"
        raise ValueError(message)
    return key


def _plain(value: object, place: str, depth: int) -> JSON:
    """Copy a value into plain lists and dicts, refusing what has no single canonical form."""
    if depth > _DEEPEST:
        raise NotCanonicalError(place, f"nested deeper than {_DEEPEST} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -_SAFE <= value <= _SAFE:
            raise NotCanonicalError(place, "an integer beyond 2^53 is not exact in JSON")
        return int(value)
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_name(name, place): _plain(item, f"{place}.{name}".lstrip("."), depth + 1) for name, item in value.items()}
    raise NotCanonicalError(place, f"{type(value).__name__} is not JSON")


def _text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise NotCanonicalError(place, "the string is not valid Unicode (a file name in another encoding?)") from None
    # The str inside, whatever a subclass (an Enum, a Digest) makes of its __str__.
    return str.__str__(value)


def _name(name: object, place: str) -> str:
    if not isinstance(name, str):
        raise NotCanonicalError(place, f"an object's names are strings, not {type(name).__name__}")
    return _text(name, place)
