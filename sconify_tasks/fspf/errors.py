"""What can be wrong with a protected file, a manifest or a tree. The code names the case in tests/vectors."""

from __future__ import annotations

from sconify_tasks.errors import SconifyError, VerificationError


class MalformedError(VerificationError):
    """Stored bytes are not what their format says. `code` is stable: it names the case in vectors and tests."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, hint="rebuild the image, and look for who changed it if nobody should have")
        self.code = code


class ContentChangedError(SconifyError):
    """A file changed while it was being read. Nothing was encrypted that differs from what was hashed."""

    def __init__(self) -> None:
        super().__init__("a file changed while it was being encrypted", hint="build again when nothing writes to it")
