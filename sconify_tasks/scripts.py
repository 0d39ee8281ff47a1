"""Scripts that start with `#!`: which program a command really starts, in what words, and which scripts it reads.

A script can't be measured or attested; its interpreter can. The interpreter becomes the service's program and the script
its argument, as the kernel has it (execve(2), "Interpreter scripts"); `env` is taken out, as it does nothing but search.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.resolve import Resolved, resolve_path
from sconify_tasks.image.source import SourceImage

MAX_LINE = 256
"""Bytes of a script that the kernel looks at (BINPRM_BUF_SIZE)."""
_MAX_SCRIPT = 1 << 20
_MAX_DEPTH = 4
_HINT = "start its interpreter with --command='INTERPRETER SCRIPT ARGUMENTS'"


class Search(Struct, frozen=True, kw_only=True):
    """Where a name leads in an image: by its PATH and its working directory."""

    native: SourceImage
    path_variable: str
    workdir: str

    def find(self, name: str, what: str) -> tuple[str, Resolved]:
        """Return a path, or a bare name's path along PATH, and the regular file it leads to; UsageError starts with `what`."""
        if "/" in name:
            candidates = [name if name.startswith("/") else f"{self.workdir.rstrip('/')}/{name}"]
        else:
            directories = self.path_variable.split(":")
            candidates = [f"{directory.rstrip('/')}/{name}" for directory in directories if directory.startswith("/")]
        for candidate in candidates:
            try:
                found = resolve_path(self.native, candidate.encode())
            except UsageError:
                continue
            if found.entry.kind is Kind.FILE:
                return candidate, found
        where = "on the PATH of" if "/" not in name else "in"
        raise UsageError(
            f"{what}: there is no file {name} {where} {self.native.name}", hint="name a program that the native image has"
        )


class Started(Struct, frozen=True, kw_only=True):
    """What a command starts: a program, in these words; `scripts` are the files it reads its first lines from."""

    program: Resolved
    words: tuple[str, ...]
    scripts: tuple[Resolved, ...]


def started(search: Search, words: Sequence[str], what: str) -> Started:
    """Follow the command through its scripts to a program. UsageError says which script can't be followed, and why."""
    path, found = search.find(words[0], what)
    scripts: list[Resolved] = []
    now = tuple(words)
    while (line := _line(search.native, found)) is not None:
        if len(scripts) == _MAX_DEPTH:
            raise UsageError(f"{shown(scripts[0].path)} is a script of a script, {_MAX_DEPTH} deep", hint=_HINT)
        scripts.append(found)
        # The kernel puts the path that was started in the place of argv[0]: what PATH found, or what was written.
        now = (*_interpreter(found, line), now[0] if "/" in now[0] else path, *now[1:])
        path, found = search.find(now[0], f"the interpreter of the script {shown(scripts[-1].path)}")
    return Started(program=found, words=now, scripts=tuple(scripts))


def _line(native: SourceImage, found: Resolved) -> bytes | None:
    """The first line of a script without its `#!`; None for anything else. A huge one is left to the ELF reader's message."""
    if not found.entry.size or found.entry.size > _MAX_SCRIPT:
        return None
    with native.walk([found.path]) as stream:
        _, content = next(stream)
        head = content.read(MAX_LINE) if content is not None else b""
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2:].partition(b"\n")
    if not newline and len(head) == MAX_LINE:
        raise UsageError(f"the first line of the script {shown(found.path)} is longer than {MAX_LINE} bytes", hint=_HINT)
    return line.strip(b" \t")


def _interpreter(script: Resolved, line: bytes) -> tuple[str, ...]:
    """The words that stand before the script's path."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = ""
    name, _, argument = text.replace("\t", " ").partition(" ")
    argument = argument.strip()
    if not name.startswith("/") or "\0" in text:
        raise UsageError(f"the script {shown(script.path)} names no interpreter by an absolute path", hint=_HINT)
    if posixpath.basename(name) == "env":
        return _after_env(script, argument)
    return (name, argument) if argument else (name,)


def _after_env(script: Resolved, argument: str) -> tuple[str, ...]:
    """`env PROGRAM`, and `env -S PROGRAM ARGUMENTS`; what would change the environment is the user's to say."""
    for option in ("-S", "--split-string="):
        if argument.startswith(option):
            words = argument.removeprefix(option).split()
            break
    else:
        words = [argument]
    first = words[0] if words else ""
    plain = not any(mark in argument for mark in "\"'\\$#")
    if not first or first.startswith("-") or "=" in first or " " in first or not plain:
        raise UsageError(
            f"the script {shown(script.path)} starts with `env {argument}`, which only env itself can read", hint=_HINT
        )
    return tuple(words)
