"""The native image's ENTRYPOINT and CMD as the words of one program.

`CMD python3 app.py` is stored as `["/bin/sh", "-c", "python3 app.py"]`. A shell is not the program that is protected, so
its text is unwrapped where no shell is needed to read it; anything else is the user's decision, never a guess.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from sconify_tasks.errors import UsageError

_SHELL = re.compile(r"(/usr)?(/bin/)?(ba|da|a)?sh")
# Words that mean the same with and without a shell: no expansion, glob, operator, comment, tilde, backslash or newline.
_BARE = r"""[^\s'"\\$`|&;<>()*?\[\]{}~#!^]"""
_SIMPLE = re.compile(rf"""[ \t]*(?:(?:{_BARE}|'[^'\n]*'|"[^"\\$`\n]*")+(?:[ \t]+|\Z))+""")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_BUILTINS = {
    *(
        ".",
        ":",
        "alias",
        "bg",
        "break",
        "builtin",
        "case",
        "cd",
        "command",
        "continue",
        "declare",
        "do",
        "done",
        "elif",
        "else",
    ),
    *("esac", "eval", "exit", "export", "fc", "fg", "fi", "for", "function", "getopts", "hash", "if", "jobs", "let", "local"),
    *("read", "readonly", "return", "select", "set", "shift", "shopt", "source", "then", "time", "times", "trap", "type"),
    *("typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
}


def native_command(entrypoint: Sequence[str], cmd: Sequence[str]) -> tuple[str, ...]:
    """Return the words that the native image starts. Raise UsageError, asking for --command, where only a shell could tell."""
    words = (*entrypoint, *cmd)
    if not words or not words[0]:
        raise UsageError(
            "the native image has neither ENTRYPOINT nor CMD", hint="say what to run with --command='PROGRAM ARGUMENTS'"
        )
    if not _SHELL.fullmatch(words[0]) or len(words) == 1:
        return words
    if words[1] != "-c":
        # A script or an option: the program is the shell itself, and --binary decides whether that is meant.
        return words
    # What follows the text would be $0, $1, …: simple words can't use them.
    return _unwrap(words[2] if len(words) > 2 else "")  # noqa: PLR2004 - sh, -c, text


def _unwrap(text: str) -> tuple[str, ...]:
    words = shlex.split(text) if _SIMPLE.fullmatch(text) else []
    if words[:1] == ["exec"]:
        words = words[1:]
    first = words[0] if words else ""
    if not first or first.startswith("-") or first in _BUILTINS or _ASSIGNMENT.match(first):
        raise UsageError(
            f"the native image starts through a shell that is needed to read its command: {text[:120]!r}",
            hint="say what to run with --command='PROGRAM ARGUMENTS'",
        )
    return tuple(words)
