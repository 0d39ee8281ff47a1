"""The command `sconify-cache` (and `doit cache`): what the cache holds, whether it is sound, and making it smaller.

Works on the whole cache folder, of every project that uses it, and needs no key. stdout carries the answer, as text or, with
`--json`, as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import asdict

from sconify_cache.limits import age, size
from sconify_tasks.environment import read_environment
from sconify_tasks.errors import SconifyError, VerificationError
from sconify_tasks.ui import lines

_STEP: Final = 1024
_Answer = dict[str, Any]


def main(arguments: Sequence[str] | None = None, *, prog: str = "sconify-cache") -> int:
    """Run one command; the exit code is the error's. Wrong words end with exit code 2 (SystemExit)."""
    words = parser(prog).parse_args(arguments)
    folder = Path(words.cache) if words.cache else read_environment(os.environ).cache
    command: Callable[[Path, argparse.Namespace], tuple[_Answer, str]] = words.command
    try:
        answer, text = command(folder.absolute(), words)
    except SconifyError as error:
        lines(sys.stderr).error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    sys.stdout.write((json.dumps(answer, sort_keys=True) if words.json else text) + "\n")
    if answer.get("damaged") and not getattr(words, "repair", False):
        refused = VerificationError("the cache is damaged", hint="--repair puts aside what is; the next build makes it again")
        lines(sys.stderr).error(refused)
        return refused.exit_code
    return 0


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog=prog, allow_abbrev=False, description="Look after the cache of sconified images.")
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("stats", help="what the cache holds").set_defaults(command=_stats)
    verify = commands.add_parser("verify", help="read everything and check it (exit code 4: damaged)")
    verify.add_argument("--repair", action="store_true", help="remove what is damaged, so that the next build makes it again")
    verify.set_defaults(command=_verify)
    collect = commands.add_parser("gc", help="remove what no build needs: abandoned things, and what the limits say")
    collect.add_argument("--max-size", type=size, metavar="SIZE", help="keep so much of what was used last, e.g. 20G (binary)")
    collect.add_argument("--max-age", type=age, metavar="AGE", help="remove what was not used for so long: 12h, 30d, 8w")
    collect.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    collect.set_defaults(command=_collect)
    commands.add_parser("path", help="print the cache folder").set_defaults(command=_path)
    for command in commands.choices.values():
        command.allow_abbrev = False
        command.add_argument("--cache", metavar="FOLDER", help="the cache [$SCONIFY_CACHE, else the user's cache folder]")
        command.add_argument("--json", action="store_true", help="answer with one JSON object")
    return found


def _stats(folder: Path, _words: argparse.Namespace) -> tuple[_Answer, str]:
    from sconify_cache import gc
    from sconify_cache.house import open_house

    house = open_house(folder)
    found = gc.stats(house.store, index=house.index)
    answer: _Answer = {
        "folder": str(folder),
        **asdict(found),
        "oldest_use": _date(found.oldest_use_ns),
        "running": len(gc.running(house.store_folder)),
        "accelerators": house.accelerators(),
    }
    del answer["oldest_use_ns"]
    house.close()
    text = [
        f"{folder}",
        f"blobs     {found.blobs} ({_bytes(found.bytes)}), {found.private} of them private",
        f"records   {found.records}",
        f"unnamed   {found.unnamed} ({_bytes(found.unnamed_bytes)}): no record names them",
        f"oldest    {answer['oldest_use'] or '-'}",
        f"running   {answer['running']}",
        *(f"{name:<9} {_bytes(count)}" for name, count in answer["accelerators"].items()),
    ]
    return answer, "\n".join(text)


def _verify(folder: Path, words: argparse.Namespace) -> tuple[_Answer, str]:
    from sconify_cache import gc
    from sconify_cache.house import open_house

    house = open_house(folder)
    found = gc.verify(house.store, index=house.index, repair=words.repair)
    house.close()
    answer = {"blobs": found.blobs, "bytes": found.bytes, "damaged": list(found.damaged), "incomplete": found.incomplete}
    said = "" if words.repair else ": what made them runs again"
    text = [
        f"{found.blobs} blobs ({_bytes(found.bytes)}) are whole",
        *(f"damaged{' (removed)' if words.repair else ''}: {digest}" for digest in found.damaged),
        *([f"{found.incomplete} records name what is not there{said}"] if found.incomplete else []),
    ]
    return answer, "\n".join(text)


def _collect(folder: Path, words: argparse.Namespace) -> tuple[_Answer, str]:
    from sconify_cache import gc
    from sconify_cache.house import open_house

    house = open_house(folder)
    now = time.time_ns()
    if not words.dry_run:
        house.store.sweep()
    found = gc.collect(
        house.store,
        folder=house.store_folder,
        now_ns=now,
        index=house.index,
        max_bytes=words.max_size,
        max_age_ns=words.max_age,
        dry_run=words.dry_run,
    )
    forgotten = house.forget(now_ns=now, max_age_ns=words.max_age, dry_run=words.dry_run)
    house.close()
    answer: Mapping[str, Any] = {**asdict(found), "forgotten": forgotten, "dry_run": words.dry_run}
    went = f"{found.blobs} blobs ({_bytes(found.bytes)}), {found.records} records, {found.pointers} pointers"
    spared = f", {found.spared} of them because a build is running" if found.spared else ""
    text = [
        f"{'would remove' if words.dry_run else 'removed'} {went}, {forgotten} remembered files",
        f"{'would keep' if words.dry_run else 'kept'} {found.kept_blobs} blobs ({_bytes(found.kept_bytes)}){spared}",
    ]
    return dict(answer), "\n".join(text)


def _path(folder: Path, _words: argparse.Namespace) -> tuple[_Answer, str]:
    return {"folder": str(folder)}, str(folder)


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= _STEP and len(units) > 1:
        value /= _STEP
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _date(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
