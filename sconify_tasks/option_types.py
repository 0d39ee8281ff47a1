"""Kinds of option values: how text becomes a value, what is allowed in words, and what an editor's schema says.

A kind reads text, whether it came from the command line or from a project file, so both mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from sconify_tasks.sgx.claims import require_date
from sconify_tasks.signing import location

Value = str | int | bool | tuple[str, ...] | None

_TRANSPORTS = ("oci:", "oci-archive:", "docker-archive:", "dir:")
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)"
_ADDRESS = re.compile(rf"{_HOST}(:([0-9]{{1,5}}))?")
_SEGMENT = re.compile(r"[A-Za-z0-9_\-.~]{1,128}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_\-.~]{1,128}(/[A-Za-z0-9_\-.~]{1,128})*")
_SIZE = re.compile(r"([0-9]{1,15})([KkMmGg]?)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(r"[0-9]{8}")
_VARIABLE = re.compile(r"[^=\0]+(=[^\0]*)?", re.DOTALL)
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PAGE = 4096
_LARGEST = 1 << 40
_MAX_PORT = 65535
_MAX_ADDRESS = 255


class Kind(Struct, frozen=True, kw_only=True):
    """`read` makes the value, or raises ValueError; `allowed` says in words what it takes.

    `relocate` is set where the text names a file of this machine: it makes the name absolute, seen from a folder.
    `bare` says that a project file may give it as a number.
    """

    name: str
    read: Callable[[str], Value]
    allowed: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string", "minLength": 1})
    relocate: Callable[[str, Path], str] | None = None
    bare: bool = False

    def value(self, text: str) -> Value:
        """Read the text; raise ValueError saying what is allowed."""
        if not text.isascii() and any(0xD800 <= ord(char) <= 0xDFFF for char in text):  # noqa: PLR2004 - bytes that are not UTF-8
            raise ValueError("UTF-8 text")
        try:
            return self.read(text)
        except ValueError:
            raise ValueError(self.allowed) from None


def choice(*words: str) -> Kind:
    """Take one of these words."""
    return Kind(
        name="choice",
        read=lambda text: _one_of(text, words),
        allowed=" | ".join(words),
        schema={"type": "string", "enum": list(words)},
    )


def level(*numbers: int) -> Kind:
    """Take one of these small numbers."""
    words = [str(number) for number in numbers]
    return Kind(
        name="choice",
        read=lambda text: int(_one_of(text, words)),
        allowed=" | ".join(words),
        schema={"enum": [*numbers, *words]},
        bare=True,
    )


def number(low: int, high: int) -> Kind:
    """Take a whole number between the two."""
    # A schema can't bound a number that is written as text; the pattern at least keeps out what is no number.
    text = {"type": "string", "pattern": "^[0-9]{1,9}$"}
    return Kind(
        name="number",
        read=lambda written: _between(written, low, high),
        allowed=f"a whole number, {low} to {high}",
        schema={"anyOf": [{"type": "integer", "minimum": low, "maximum": high}, text]},
        bare=True,
    )


def _one_of(text: str, words: Sequence[str]) -> str:
    if text not in words:
        raise ValueError(text)
    return text


def _between(text: str, low: int, high: int) -> int:
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise ValueError(text)
    return int(text)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return read


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def _line(text: str) -> str:
    if not text.strip() or _CONTROL.search(text):
        raise ValueError(text)
    return text


def _reference(text: str) -> str:
    if any(char.isspace() for char in _line(text)) and not text.startswith(_TRANSPORTS):
        raise ValueError(text)
    if text.endswith(":") or text.startswith("-"):
        raise ValueError(text)
    return text


def _image_path(text: str) -> str:
    if not text.startswith("/") or _CONTROL.search(text):
        raise ValueError(text)
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:  # what it means depends on links that are not known here
        raise ValueError(text)
    return "/" + "/".join(parts)


def _program(text: str) -> str:
    return _image_path(text) if "/" in text else _line(text)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(text)
    # Whole pages are what an enclave has; scripts in the wild say 4610612736, which is not.
    size = -(-int(found[1]) * _UNIT[found[2].upper()] // _PAGE) * _PAGE
    if not 0 < size <= _LARGEST:
        raise ValueError(text)
    return size


def _address(text: str) -> str:
    found = _ADDRESS.fullmatch(text) if len(text) <= _MAX_ADDRESS else None
    if not found or (found[4] and not 0 < int(found[4]) <= _MAX_PORT):
        raise ValueError(text)
    return text


def _names(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text) or {".", ".."} & set(text.split("/")):
            raise ValueError(text)
        return text

    return read


def _digest(text: str) -> str:
    return _matching(_DIGEST)(text).lower()


def _signer(text: str) -> str:
    location.parse_location(text)
    return text


def _date(text: str) -> int:
    if not _DATE.fullmatch(text) or int(text) < 19700101:  # noqa: PLR2004
        raise ValueError(text)
    require_date(int(text))
    return int(text)


def _file_below(text: str, folder: Path) -> str:
    return str(folder / text)


def _reference_below(text: str, folder: Path) -> str:
    transport = next((prefix for prefix in _TRANSPORTS if text.startswith(prefix)), None)
    return transport + str(folder / text.removeprefix(transport)) if transport else text


FLAG = Kind(name="flag", read=lambda text: text == "true", allowed="true | false", schema={"type": "boolean"})
TEXT = Kind(name="text", read=_text, allowed="text that is not empty")
LINE = Kind(name="line", read=_line, allowed="one line of text that is not empty")
REFERENCE = Kind(
    name="image",
    read=_reference,
    allowed="an image's name, or docker:NAME, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:ROOTFS, registry:REF",
    relocate=_reference_below,
)
IMAGE_PATH = Kind(
    name="path",
    read=_image_path,
    allowed="an absolute path in the image, without ..",
    schema={"type": "string", "pattern": r"^(?!.*/\.\.(/|$))/[^\x00-\x1f\x7f]*$"},
)
PROGRAM = Kind(name="program", read=_program, allowed="an absolute path in the image, or a bare name that is on its PATH")
FILE = Kind(name="file", read=_line, allowed="the name of a file on this machine", relocate=_file_below)
SIGNER = Kind(
    name="signer",
    read=_signer,
    allowed="a PEM file, pkcs11:token=LABEL;object=LABEL (RFC 7512, without a PIN), or command:PROGRAM ARGUMENTS",
    relocate=location.relocate,
)
DATE = Kind(
    name="date",
    read=_date,
    allowed="a date as YYYYMMDD",
    schema={
        "anyOf": [{"type": "integer", "minimum": 19700101, "maximum": 99991231}, {"type": "string", "pattern": "^[0-9]{8}$"}]
    },
    bare=True,
)
FOLDER = Kind(name="folder", read=_line, allowed="the name of a folder on this machine", relocate=_file_below)
SIZE = Kind(
    name="size",
    read=_size,
    allowed="bytes, or a number with K, M or G (1G is 2^30), at most 1024G; rounded up to pages of 4096",
    schema={
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": _LARGEST},
            {"type": "string", "pattern": "^[0-9]{1,15}[KkMmGg]?$"},
        ]
    },
    bare=True,
)
ADDRESS = Kind(
    name="address",
    read=_address,
    allowed="HOST or HOST:PORT, without a scheme",
    schema={"type": "string", "pattern": f"^{_ADDRESS.pattern}$"},
)
NAME = Kind(
    name="name",
    read=_names(_SEGMENT),
    allowed="1 to 128 of A-Z a-z 0-9 _ - . ~",
    schema={"type": "string", "pattern": f"^{_SEGMENT.pattern}$"},
)
NAMESPACE = Kind(
    name="namespace",
    read=_names(_NAMESPACE),
    allowed="names of 1 to 128 of A-Z a-z 0-9 _ - . ~, joined by /",
    schema={"type": "string", "pattern": f"^{_NAMESPACE.pattern}$"},
)
VARIABLE = Kind(
    name="variable",
    read=_matching(_VARIABLE),
    allowed="NAME=VALUE",
    schema={"type": "string", "pattern": "^[^=]"},
)
DIGEST = Kind(
    name="digest",
    read=_digest,
    allowed="64 hex digits",
    schema={"type": "string", "pattern": f"^{_DIGEST.pattern}$"},
)
URL = Kind(
    name="url",
    read=_matching(re.compile(r"https://[^\s/]\S*")),
    allowed="an https:// address",
    schema={"type": "string", "pattern": "^https://"},
)
VOLUME = Kind(
    name="volume",
    read=_matching(re.compile(r"[^:\s]+:/[^:\0]*(:[^:\s]*)*")),
    allowed="NAME:PATH[:[FROM_SESSION][:TO_SESSION…]]",
    schema={"type": "string", "pattern": "^[^:\\s]+:/"},
)
MOUNT = Kind(
    name="mount",
    read=_matching(re.compile(r"[^:\s]+:/[^:\0]*")),
    allowed="NAME:PATH",
    schema={"type": "string", "pattern": "^[^:\\s]+:/[^:]*$"},
)
SETTING = Kind(
    name="setting",
    read=_matching(re.compile(r"[^=\s]+=[^\0]*", re.DOTALL)),
    allowed="PARAM=VALUE",
    schema={"type": "string", "pattern": "^[^=\\s]+="},
)
PORT = number(1, _MAX_PORT)
