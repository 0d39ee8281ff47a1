"""The passphrase of a key, or the PIN of a token: from a file, the environment, or a prompt. Never from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sconify_tasks.errors import UsageError

VARIABLE = "SCONIFY_SIGNER_PASSPHRASE"
_LONGEST = 4096
_TERMINAL = "/dev/tty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passphrase:
    """Asked with the name of what it opens. A file goes before the environment, and both before the prompt."""

    file: Path | None = None
    given: str | None = field(default=None, repr=False)
    prompt: Callable[[str], str | None] = field(default_factory=lambda: ask)

    def __call__(self, what: str) -> bytes:
        """Return the passphrase of `what`, without its line end; UsageError where nobody can say it."""
        if self.file is not None:
            return read_passphrase(self.file)
        text = self.given if self.given is not None else self.prompt(what)
        if text is None:
            hint = f"set {VARIABLE}, give --scone-signer-passphrase-file=FILE, or run it on a terminal"
            raise UsageError(f"{what} needs a passphrase", hint=hint)
        return text.encode(errors="surrogateescape")


def read_passphrase(file: Path) -> bytes:
    """Return the first line of a file; UsageError where it can't be read."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(_LONGEST)
    except OSError as error:
        raise UsageError(f"the passphrase file {file} can't be read: {error.strerror}", hint="look at its name") from error
    return line.rstrip(b"\r\n")


def ask(what: str) -> str | None:
    """Ask on the terminal, without an echo; None where there is none."""
    import getpass

    try:
        open(_TERMINAL, "r+b", buffering=0).close()  # noqa: PTH123 - getpass would fall back to an echoing stdin
    except OSError:
        return None
    try:
        return getpass.getpass(f"passphrase of {what}: ")
    except EOFError:
        return None
