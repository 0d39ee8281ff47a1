"""`doit cache COMMAND`: the same as `sconify-cache COMMAND`, for who is at doit anyway."""

from __future__ import annotations

from collections.abc import Sequence

from doit.cmd_base import Command


class Cache(Command):  # type: ignore[misc]
    """Hands its words on: there is one command line for both names."""

    name = "cache"
    doc_purpose = "look after the cache of sconified images"
    doc_usage = "stats | verify [--repair] | gc [--max-size SIZE] [--max-age AGE] [--dry-run] | path"
    doc_description = "`doit cache COMMAND --help` says more. All take --cache FOLDER and --json."

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """Return the exit code (see `sconify_tasks.errors`)."""
        from sconify_tasks.cache_cli import main

        return main(in_args, prog="doit cache")
