"""Where a signing key is, as `--scone-signer` says it: a URI whose scheme chooses the signer. Pure: nothing is opened.

signer.pem, file:signer.pem            a PEM file
pkcs11:token=T;object=O?module-path=M  a key on a token (RFC 7512)
command:/usr/bin/sign --key prod       a program: data on stdin, signature on stdout
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from msgspec import Struct

_COMMAND, _FILE, _TOKEN = "command:", "file:", "pkcs11:"
_PATH_ATTRIBUTES = ("token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type")
_QUERY_ATTRIBUTES = ("module-path", "pin-source")
_HEX_ESCAPES = re.compile(r"([^%]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PemFile(Struct, frozen=True, kw_only=True):
    """A private key in a file."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A key on a PKCS#11 token. `id` is bytes, the others are text; `pin_source` is a file that holds the PIN."""

    uri: str = field(repr=False)
    attributes: Mapping[str, str]
    id: bytes = b""
    module: str = ""
    pin_source: str = ""


class Command(Struct, frozen=True, kw_only=True):
    """A program and its arguments; no shell is asked."""

    words: tuple[str, ...]


Location = PemFile | Token | Command


def parse_location(text: str) -> Location:
    """Read a location. ValueError says what is wrong, and repeats nothing that could be a PIN."""
    if not text.strip() or _CONTROL.search(text):
        raise ValueError("one line of text that is not empty")
    if text.startswith(_TOKEN):
        return _token(text)
    if text.startswith(_COMMAND):
        return _command(text.removeprefix(_COMMAND))
    path = text.removeprefix(_FILE)
    if not path or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
        raise ValueError("a PEM file, or a URI that begins with pkcs11: or command:")
    return PemFile(path=Path(path))


def relocate(text: str, folder: Path) -> str:
    """Make a location that stands in a project file absolute, seen from the project's folder.

    ValueError for one that would run a program or load a library: a project must not choose what runs on this machine.
    """
    location = parse_location(text)
    if isinstance(location, Command) or (isinstance(location, Token) and location.module):
        raise ValueError("a PEM file, or a pkcs11: URI without module-path; give others as --scone-signer or SCONIFY_SIGNER")
    return text if isinstance(location, Token) else str(folder / location.path)


def _command(text: str) -> Command:
    try:
        import shlex

        words = tuple(shlex.split(text))
    except ValueError:
        raise ValueError("command: and a program with its arguments, quoted as for a shell") from None
    if not words:
        raise ValueError("command: and a program with its arguments")
    return Command(words=words)


def _token(uri: str) -> Token:
    path, _, query = uri.removeprefix(_TOKEN).partition("?")
    attributes = _attributes(path.split(";") if path else [], _PATH_ATTRIBUTES)
    asked = _attributes(query.split("&") if query else [], _QUERY_ATTRIBUTES)
    if not attributes.keys() & {"object", "id"}:
        raise ValueError("pkcs11:token=LABEL;object=LABEL, with object= or id= naming the key (RFC 7512)")
    if attributes.pop("type", b"private") != b"private":
        raise ValueError("a pkcs11: URI of a private key")
    key_id = attributes.pop("id", b"")
    return Token(
        uri=uri,
        attributes={name: _text(name, value) for name, value in attributes.items()},
        id=key_id,
        module=_text("module-path", asked.get("module-path", b"")),
        pin_source=_text("pin-source", asked.get("pin-source", b"")).removeprefix("file:"),
    )


def _attributes(parts: list[str], known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if name in {"pin-value", "pin"}:
            raise ValueError("a pkcs11: URI without a PIN: others can read a command line (use --scone-signer-passphrase-file)")
        if not equals or name not in known or name in found:
            raise ValueError(f"a pkcs11: URI of {', '.join(known)}, each once (RFC 7512)")
        if not _HEX_ESCAPES.fullmatch(value):
            raise ValueError("a pkcs11: URI in which % stands before two hex digits (RFC 7512)")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"a pkcs11: URI whose {name} is UTF-8") from None
    if "\0" in text:
        raise ValueError(f"a pkcs11: URI whose {name} has no NUL")
    return text
