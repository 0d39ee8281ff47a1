"""Which program this is: the stat of its own files. An upgrade, or an edit in a checkout, is another program."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sconify_tasks.settled.signature import signature

_PACKAGES = ("sconify_tasks", "sconify_cache", "sconify_dodo")
_SKIPPED = frozenset({"__pycache__", "cmd", "internal"})
_READ = (".py", ".pem", "-amd64", "-arm64")


def program_signature() -> str:
    """A digest over the files that steps are made of, the runtimes among them."""
    from importlib.util import find_spec

    hasher = hashlib.blake2b(digest_size=32)
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            _walk(str(Path(folder)), hasher)
    return hasher.hexdigest()


def _walk(folder: str, hasher: hashlib.blake2b) -> None:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.endswith(_READ):
            hasher.update(f"{entry.path}{signature(entry.stat())}\n".encode("utf-8", "surrogateescape"))
        elif entry.name not in _SKIPPED and "." not in entry.name and entry.is_dir():
            _walk(entry.path, hasher)
