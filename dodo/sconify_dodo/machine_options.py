"""Options of `doit` commands that belong to a machine or a terminal, and not to a project; `sconify_image` has the same.

Written out, so that a run that finds nothing to do need not load the option table; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any


def _option(name: str, text: str, *, default: bool | str) -> dict[str, Any]:
    return {"name": name.replace("-", "_"), "long": name, "type": type(default), "default": default, "help": text}


NO_COLOR = _option("no-color", "no colours", default=False)
EXPLAIN = _option("explain", "say of every step why it runs or does not, down to the file (docs/explain.md)", default=False)
EVENTS = _option("events", "write what happens to FILE as JSON lines (docs/events.md)", default="")
TRACE = _option("trace", "write a Chrome trace of the run to FILE", default="")
MACHINE_OPTIONS = (NO_COLOR, EXPLAIN, EVENTS, TRACE)
