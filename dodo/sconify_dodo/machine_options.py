"""How options of `doit` commands are written; and those that belong to a machine or a terminal, not to a project.

`sconify_image` has the latter, too.

Written out, so that a run that finds nothing to do need not load the option table; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any


def option(name: str, text: str, *, default: bool | str, short: str = "") -> dict[str, Any]:
    """What doit takes for `--NAME`, and `-SHORT` if there is one. The type is that of the default."""
    return {
        "name": name.replace("-", "_"),
        "short": short,
        "long": name,
        "type": type(default),
        "default": default,
        "help": text,
    }


NO_COLOR = option("no-color", "no colours", default=False)
EXPLAIN = option("explain", "say of every step why it runs or does not, down to the file (docs/explain.md)", default=False)
EVENTS = option("events", "write what happens to FILE as JSON lines (docs/events.md)", default="")
TRACE = option("trace", "write a Chrome trace of the run to FILE", default="")
MACHINE_OPTIONS = (NO_COLOR, EXPLAIN, EVENTS, TRACE)
