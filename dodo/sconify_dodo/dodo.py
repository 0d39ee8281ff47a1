"""The project's images as tasks of any doit command, beside the user's own.

Two lines in a dodo.py do it:

    from sconify_dodo.dodo import task_sconify_images
    DOIT_CONFIG = {"backend": "sconify", "dep_file": ".doit-sconify.db"}

`loader = "sconify"` in the doit configuration needs no dodo.py at all (`sconify_dodo.loader`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sconify_dodo.graph_tasks import project_tasks

__all__ = ["task_sconify_images"]


def task_sconify_images() -> Iterator[dict[str, Any]]:
    """Make the confidential images of sconify.yaml."""
    yield from project_tasks()
