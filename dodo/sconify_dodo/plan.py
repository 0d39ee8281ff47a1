"""One image's options become its steps and their edges. Pure: nothing is opened, nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sconify_tasks.graph import STEPS
from sconify_tasks.graph_binary_fs import with_binary_fs
from sconify_tasks.step import IMAGES, Step

GROUP = "sconify"
"""How the names of all tasks begin: `sconify:IMAGE:STEP`."""


def plan(options: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps that these options ask for, in topological order."""
    left_out = {"upload"} if options["disable-session-upload"] else set()
    steps = with_binary_fs(STEPS) if options["binary-fs"] else STEPS
    return tuple(step for step in steps if step.name not in left_out)


def takes_an_image(step: Step) -> bool:
    """Whether the step looks at an image that another one of the project may deliver: then it waits for that."""
    return not IMAGES.isdisjoint(step.inputs.values())
