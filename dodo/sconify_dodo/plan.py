"""One image's options become its steps and their edges. Pure: nothing is opened, nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sconify_tasks.step import Step
from sconify_tasks.steps import (
    binary,
    cas,
    copy,
    deliver,
    encrypt,
    files,
    image,
    inspect,
    libraries,
    manifest,
    policy,
    resources,
    sconify,
    sign,
    upload,
    verify,
)

# In topological order: a step's inputs come from steps above it.
ALL: tuple[Step, ...] = (
    inspect.STEP,
    binary.STEP,
    files.STEP,
    libraries.STEP,
    cas.STEP,
    sign.STEP,
    encrypt.STEP,
    copy.STEP,
    sconify.STEP,
    manifest.STEP,
    image.STEP,
    verify.STEP,
    policy.STEP,
    deliver.STEP,
    resources.STEP,
    upload.STEP,
)


def plan(options: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps that these options ask for."""
    left_out = {upload.STEP.name} if options["disable-session-upload"] else set()
    return tuple(step for step in ALL if step.name not in left_out)
