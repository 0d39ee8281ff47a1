"""binary: which ELF file is sconified, and that the native command starts it.

The original ELF becomes a blob of its own unless it lies under a protected directory: then it is a protected file like
any other, and only its digest travels in the sconified ELF.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

from msgspec.structs import replace

from sconify_cache.digest import Digest
from sconify_tasks.elf import ElfFacts, inspect, require_architecture
from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.resolve import Resolved, find_path
from sconify_tasks.image.source import SourceImage
from sconify_tasks.policy.command import split
from sconify_tasks.policy.shell_form import native_command
from sconify_tasks.scripts import Search, Started, started
from sconify_tasks.selection import select
from sconify_tasks.services import detect
from sconify_tasks.step import Context, Outputs

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUFFER = 1 << 17
_LARGEST = 4 << 30


def run(context: Context) -> Outputs:
    """Yield the binary's place, digest and ELF facts, the links that lead to it, and the command's words."""
    native = context.native()
    config = context.load("config")
    search = Search(native=native, path_variable=context.text("path_variable") or _DEFAULT_PATH, workdir=config["workdir"])
    named = started(search, [context.options.text("binary")], "--binary")
    command = started(search, _command(context, config), "the command's first word")
    found = named.program
    if command.program.path != found.path:
        raise _other_program(command, found)
    scripts = {script.path: script for script in (*named.scripts, *command.scripts)}
    protected = select(native, context.options).regions().protection(found.path) is Protection.ENCRYPTED
    blobs, digest, size, facts = _read(context, native, found, keep=not protected)
    require_architecture(facts, config["architecture"], name=f"the binary {_text(found.path)}")
    if not facts.is_pie and not context.options.flag("disable-pie-check"):
        context.warn(
            f"{_text(found.path)} is not compiled as a position-independent executable (PIE): `file` says so too. The vendor's"
            " runtime needs PIE; this one does not, and it is converted all the same (--disable-pie-check: not a word of it)"
        )
    main = ManifestEntry(meta=replace(found.entry, size=size), content=bytes.fromhex(digest))
    blobs["entry"] = context.world.trees.put([main])
    links = _links(native, found, [named.program, command.program, *scripts.values()], context)
    blobs["command"] = context.world.store.put(json.dumps(list(command.words)).encode(), private=True)
    for script in scripts:
        context.detail(f"{_text(script)} is a script: its interpreter {_text(found.path)} is the binary, and reads it")
    return Outputs(
        blobs=blobs,
        facts={
            "path": _text(found.path),
            "sha256": digest,
            "size": size,
            "protected": protected,
            "architecture": config["architecture"],
            "interpreter": facts.interpreter.decode(errors="replace"),
            "static": facts.static,
            "scripts": tuple(sorted(_text(path) for path in scripts)),
            "links": [(link, target) for link, target in sorted(links.items())],
            **({"original": None} if protected else {}),
        },
    )


def _command(context: Context, config: Mapping[str, Any]) -> tuple[str, ...]:
    given = context.options.text("command")
    return split(given) if given else native_command(config["entrypoint"], config["cmd"])


def _other_program(command: Started, found: Resolved) -> UsageError:
    first = command.scripts[0].path if command.scripts else b""
    how = f", which runs the script {_text(first)}" if first else ""
    return UsageError(
        f"the command starts {_text(command.program.path)}{how}, and --binary is {_text(found.path)}",
        hint="name the program that is to be protected in both: --binary=PATH and --command='PROGRAM ARGUMENTS'",
    )


def _read(
    context: Context, native: SourceImage, found: Resolved, *, keep: bool
) -> tuple[dict[str, Digest], str, int, ElfFacts]:
    """Hash the ELF and look into it; keep it as a blob where it is not protected."""
    store = context.world.store
    if found.entry.size > _LARGEST:
        raise UsageError(f"the binary {_text(found.path)} has {found.entry.size} bytes", hint="4 GiB is the limit")
    with store.scratch() as scratch, native.walk([found.path]) as stream:
        _, content = next(stream)
        assert content is not None
        # What is protected waits in a file without a name: it is gone with the process, whatever ends it.
        with (scratch / "elf").open("w+b") if keep else TemporaryFile(dir=scratch) as copy:
            digest, size = _copy(content, copy)
            copy.flush()
            facts = inspect(Path(f"/proc/self/fd/{copy.fileno()}"), name=f"the binary {_text(found.path)}")
        blobs = {"original": store.adopt(scratch / "elf")} if keep else {}
    return blobs, digest, size, facts


def _copy(content: BinaryIO, out: IO[bytes]) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    while block := content.read(_BUFFER):
        hasher.update(block)
        out.write(block)
        size += len(block)
    return hasher.hexdigest(), size


def _links(native: SourceImage, found: Resolved, ways: Iterable[Resolved], context: Context) -> dict[str, str]:
    """Symlinks by which the program and its scripts are known: those on the way to them, and the service's usual one."""
    path = _text(found.path)
    links = {_text(link.path): _text(link.target) for way in ways for link in way.links}
    service = None if context.options.flag("disable-binary-symlink-detection") else detect(path)
    for link in service.links if service else ():
        entry = native.lstat(link)
        if entry is None:
            links.setdefault(link.decode(), path)
        elif entry.kind is Kind.SYMLINK and (at := find_path(native, link)) is not None and at.path == found.path:
            links.setdefault(link.decode(), _text(entry.target))
    return links


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the name of the binary is not UTF-8: {path!r}", hint="rename it in the native image") from None
