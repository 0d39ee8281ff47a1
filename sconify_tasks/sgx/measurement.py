"""MRENCLAVE as a type, and the error for what a measurement or a signature refuses."""

from __future__ import annotations

import re
from typing import Self

from sconify_tasks.errors import VerificationError

_HEX = re.compile(r"[0-9a-f]{64}\Z")


class MrEnclave(str):
    """64 lower-case hex digits: SHA-256 over what ECREATE, EADD and EEXTEND saw."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError for anything else."""
        if not _HEX.match(value):
            raise ValueError(f"not an MRENCLAVE (64 hex digits): {value[:90]!r}")
        return super().__new__(cls, value)


class EnclaveError(VerificationError):
    """A measured config, a SIGSTRUCT or a sconified ELF is not what its format says.

    `code` is stable: it names the case in vectors and tests.
    """

    def __init__(self, code: str, message: str, *, hint: str = "rebuild the image") -> None:
        super().__init__(message, hint=hint)
        self.code = code
