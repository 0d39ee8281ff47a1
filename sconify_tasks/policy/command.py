"""The command of a service: words, and the text with shell-like quoting that a session holds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from sconify_tasks.errors import UsageError

MAX_COMMAND = 1 << 17  # Linux takes no longer argument; shlex's time grows with the square of a word


def split(command: str | Sequence[str]) -> tuple[str, ...]:
    """Split as a POSIX shell quotes: no expansion of any kind. Words already split are checked and handed back.

    Raise UsageError for NUL, an open quote, and `@@1` or `@@NAME` (values from the host's command line), not built yet.
    """
    if feature := check_command(command, error=UsageError):
        raise UsageError(f"{feature} in the command {_shown(command)} is not built yet", hint="write the arguments out")
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def join(words: Sequence[str]) -> str:
    """Make the text that `split` turns into these words again."""
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    quoted = shlex.quote(word)
    if "@@" not in word:
        return quoted
    # `@@` must not become an expansion: a backslash outside the quotes takes its meaning away.
    return quoted.replace("@", "'\\@'" if quoted.startswith("'") else "\\@")


def check_command(command: str | Sequence[str], *, error: Callable[[str], UsageError]) -> str:
    """Raise what `error` makes for a malformed command; return the feature that is not built yet, or nothing."""
    if any("\0" in part for part in ([command] if isinstance(command, str) else command)):
        raise error("the command has a NUL character")
    if sum(map(len, command)) > MAX_COMMAND:
        raise error(f"the command is longer than {MAX_COMMAND} characters")
    if not isinstance(command, str):
        return "a host argument (@@)" if any("@@" in word or "\\@\\@" in word for word in command) else ""
    try:
        shlex.split(command)
    except ValueError as reason:
        raise error(f"the command can't be split into words: {str(reason).lower()}") from None
    return "a host argument (@@)" if "@@" in command else ""


def _shown(command: str | Sequence[str]) -> str:
    return repr((command if isinstance(command, str) else " ".join(command))[:80])
