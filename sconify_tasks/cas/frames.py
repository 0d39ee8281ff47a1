"""Frames: one JSON object each, behind a length (docs/formats.md section 8). Pure: bytes in, values out."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from sconify_tasks.errors import VerificationError

VERSION = 1
MAX_REQUEST = 1 << 20
MAX_REPLY = 64 << 20
PREFIX = struct.Struct(">I")


class RefusedError(VerificationError):
    """A request that is answered with an error; `code` is one of docs/formats.md section 8.2."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Length and JSON; the version is added."""
    body = json.dumps({"v": VERSION, **message}, separators=(",", ":")).encode("ascii")
    return PREFIX.pack(len(body)) + body


def error_frame(error: RefusedError) -> bytes:
    """Make the reply that refuses. The text is fit to be printed by whoever gets it."""
    text = f"{error.message}\n{error.hint}" if error.hint else error.message
    return encode_frame({"error": {"code": error.code, "message": printable(text)}})


def decode_body(body: bytes) -> dict[str, Any]:
    """Read one frame's JSON. RefusedError (`bad-request`, `unsupported-version`) for all but one object of our version."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # deep nesting is a RecursionError
        raise RefusedError(f"the frame is not JSON: {type(error).__name__}", code="bad-request") from error
    if not isinstance(value, dict):
        raise RefusedError("the frame is not a JSON object", code="bad-request")
    version = value.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise RefusedError(
            f"the frame is of version {str(version)[:20]!r} where {VERSION} is spoken",
            code="unsupported-version",
            hint="build the image again with this release, or upgrade the CAS",
        )
    return value


def expect(request: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> None:
    """Refuse a request of another type, with a key too many, or with one too few."""
    if request.get("type") != kind:
        raise RefusedError(f"request type {str(request.get('type'))[:40]!r} where {kind!r} was expected", code="bad-request")
    if set(request) != {"type", *names}:
        raise RefusedError(f"a {kind!r} request has the keys v, type, {', '.join(names)}", code="bad-request")


def hex_bytes(value: object, length: int, what: str) -> bytes:
    """Lower-case hex of exactly `length` bytes."""
    try:
        if not isinstance(value, str) or len(value) != 2 * length or value != value.lower():
            raise ValueError  # noqa: TRY301
        decoded = bytes.fromhex(value)
        if len(decoded) != length:  # fromhex skips blanks
            raise ValueError  # noqa: TRY301
    except ValueError:
        raise RefusedError(f"{what} is not {length} bytes of lower-case hex", code="bad-request") from None
    return decoded


def printable(text: str) -> str:
    """Text that a terminal shows as it is: no escape sequences, no lone surrogates, line feeds kept."""
    return "".join(char if char == "\n" or char.isprintable() else "?" for char in text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
