"""What a CAS refuses, beyond the errors of the whole project. The class decides the HTTP status and the exit code.

UsageError              400  the session can't be read, or asks for what is not built
├── SessionNotFoundError 404
PolicyConflictError     409  another version is there
├── AccessDeniedError   403  the access policy says no
VerificationError
├── RefusedError        -    an enclave's request (see `frames`)
"""

from __future__ import annotations

from sconify_tasks.errors import PolicyConflictError, UsageError


class SessionNotFoundError(UsageError):
    """The CAS has no session of that name, or no version of that hash."""


class AccessDeniedError(PolicyConflictError):
    """The session's access policy does not let this identity do that."""
