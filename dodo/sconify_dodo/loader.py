"""`loader = "sconify"` in doit.cfg or pyproject.toml: the project's images as tasks.

Beside those of a dodo.py, if there is one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from doit.cmd_base import DodoTaskLoader

_STATE = ".doit-sconify.db"


class SconifyLoader(DodoTaskLoader):  # type: ignore[misc]
    """As doit's own loader. A dodo.py is not needed, and one that defines `task_sconify_images` itself is left alone."""

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Load the user's dodo.py, if there is one, and put the creator of our tasks beside what it defines."""
        from sconify_dodo.dodo import task_sconify_images

        if self._has_dodo(opt_values):
            super().setup(opt_values)
        else:
            if folder := opt_values.get("cwdPath"):
                os.chdir(folder)
            self.namespace: dict[str, Any] = {}
        self.namespace.setdefault("task_sconify_images", task_sconify_images)

    def load_doit_config(self) -> dict[str, Any]:
        """The user's DOIT_CONFIG; state goes into our backend unless it says otherwise."""
        found: dict[str, Any] = super().load_doit_config()
        if "backend" not in found:
            found = {"dep_file": _STATE, **found, "backend": "sconify"}
        return found

    def _has_dodo(self, options: dict[str, Any]) -> bool:
        """Whether doit would find the file that its options name; one that is named and missing is doit's to refuse."""
        name = Path(options["dodoFile"])
        if name != Path("dodo.py") or name.exists():
            return True
        return bool(options.get("seek_file")) and any((folder / name).exists() for folder in Path.cwd().parents)
