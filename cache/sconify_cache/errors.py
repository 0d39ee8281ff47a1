"""The error tree: one root, an exit code per class.

SconifyError            1  a step failed
├── StoreError          1  the store or the disk below it
├── UsageError          2  options or project file
├── UnavailableError    3  engine, registry, CAS: something outside does not answer
├── VerificationError   4  verification or attestation refused
├── PolicyConflictError 5  the CAS holds something that contradicts this policy
└── Interrupted       130  the user stopped it

It lives in the lowest package because every door opens downwards; `sconify_tasks.errors` hands it on.
"""

from __future__ import annotations


class SconifyError(Exception):
    """What went wrong and what to do about it, each in one line fit for a user."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class StoreError(SconifyError):
    """The store, or the disk below it, failed: full, read-only, damaged."""


class UsageError(SconifyError):
    """Options or project file ask for something that can't be."""

    exit_code = 2


class UnavailableError(SconifyError):
    """Something outside (engine, registry, CAS, base image) is not there."""

    exit_code = 3


class VerificationError(SconifyError):
    """Verification or attestation said no."""

    exit_code = 4


class PolicyConflictError(SconifyError):
    """The CAS holds something that contradicts what was to be uploaded."""

    exit_code = 5


class Interrupted(SconifyError):  # noqa: N818 - it is what happened, not a mistake
    """The user stopped the build."""

    exit_code = 130
