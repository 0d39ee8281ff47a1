"""The measured config: what decides how the enclave starts, and is therefore part of MRENCLAVE (docs/formats.md section 4)."""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.measurement import EnclaveError

PAGE = 4096
VERSION = 1
MAX_BYTES = 1 << 40
"""Upper bound of heap and of stack: far above any machine, far below an overflow of the enclave's size."""
MAX_THREADS = 256
_MAX_ENCODED = 16 * PAGE
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class MeasuredBinary(Struct, frozen=True, kw_only=True):
    """The sconified program: its path in the image, and digest and size of the original ELF.

    `protected` says that the original is an encrypted entry of the manifest and not a section of the sconified ELF.
    """

    path: str
    sha256: str
    size: int
    protected: bool


class MeasuredConfig(Struct, frozen=True, kw_only=True):
    """Values out of range raise UsageError: they come from options."""

    heap: int
    stack: int
    dlopen: int
    fork: int
    mprotect: int
    threads: int
    binary: MeasuredBinary
    binary_fs: str | None = None
    cas_spki: str | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("heap", self.heap, 0, MAX_BYTES),
            ("stack", self.stack, 0, MAX_BYTES),
            ("dlopen", self.dlopen, 0, 2),
            ("fork", self.fork, 0, 1),
            ("mprotect", self.mprotect, 0, 1),
            ("threads", self.threads, 1, MAX_THREADS),
            ("binary.size", self.binary.size, 0, MAX_BYTES),
        ):
            _require_integer(name, value, low, high)
        for name, value in (("heap", self.heap), ("stack", self.stack)):
            if value % PAGE:
                raise UsageError(f"{name} is {value} bytes", hint=f"give a multiple of {PAGE}")
        _require_digest("binary.sha256", self.binary.sha256)
        if self.binary_fs is not None:
            _require_digest("binary_fs", self.binary_fs)
        if self.cas_spki is not None:
            _require_digest("cas_spki", self.cas_spki)
        if type(self.binary.protected) is not bool:
            raise UsageError("binary.protected is neither true nor false")
        _require_path(self.binary.path)

    def encode(self) -> bytes:
        """Canonical JSON (RFC 8785), padded with zero bytes to whole pages."""
        import rfc8785

        text = rfc8785.dumps({"v": VERSION, **self.as_json()})
        return text + bytes(-len(text) % PAGE)

    def as_json(self) -> dict[str, Any]:
        """The fields by name, those of the binary within."""
        return {**asdict(self), "binary": asdict(self.binary)}


def decode_config(data: bytes) -> MeasuredConfig:
    """Read a config strictly; EnclaveError unless encoding the result gives exactly `data` again."""
    if not data or len(data) % PAGE or len(data) > _MAX_ENCODED:
        raise EnclaveError("length", f"a measured config is not {len(data)} bytes long")
    try:
        fields = json.loads(data.rstrip(b"\0").decode())
    except (ValueError, RecursionError) as error:
        raise EnclaveError("json", "the measured config is not JSON") from error
    config = _from_fields(fields)
    # One comparison refuses every other spelling: white space, key order, duplicate keys, escapes, 1.0 for 1, more padding.
    if config.encode() != data:
        raise EnclaveError("canonical", "the measured config is not in canonical form")
    return config


def _from_fields(fields: Any) -> MeasuredConfig:
    fields = _require_keys("the measured config", fields, {"v", *MeasuredConfig.__struct_fields__})
    version = fields.pop("v")
    if version != VERSION or type(version) is not int:
        raise EnclaveError("version", f"measured config version {str(version)[:20]} is unknown: this program reads {VERSION}")
    binary = _require_keys("binary in the measured config", fields.pop("binary"), set(MeasuredBinary.__struct_fields__))
    try:
        return MeasuredConfig(binary=MeasuredBinary(**binary), **fields)
    except UsageError as error:
        raise EnclaveError("range", f"the measured config is wrong: {error.message}") from error


def _require_keys(what: str, fields: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise EnclaveError("json", f"{what} is no JSON object")
    if unknown := sorted(fields.keys() - keys):
        raise EnclaveError("unknown-key", f"{what} has the unknown key {unknown[0][:40]!r}")
    if missing := sorted(keys - fields.keys()):
        raise EnclaveError("missing-key", f"{what} lacks the key {missing[0]!r}")
    return dict(fields)


def _require_integer(name: str, value: object, low: int, high: int) -> None:
    # `type` and not isinstance: True is an int to Python and something else to every other reader of the JSON.
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} is {str(value)[:40]}", hint=f"give an integer from {low} to {high}")


def _require_digest(name: str, value: object) -> None:
    if not isinstance(value, str) or not _SHA256.match(value):
        raise UsageError(f"{name} is not 64 lower-case hex digits")


def _require_path(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or len(path.encode(errors="replace")) > PAGE:
        raise UsageError("binary.path is not an absolute path")
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise UsageError(f"binary.path is not normalised: {path[:200]!r}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path of the binary is not UTF-8: {path[:200]!r}", hint="rename it in the native image") from None
