"""`doit sconify [IMAGE…]`: the images of the nearest sconify.yaml, in any folder, with no dodo.py.

The command brings its own loader: a dodo.py, broken or not, and the tasks in it are not looked at.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sconify_dodo.machine_options import MACHINE_OPTIONS, option
from sconify_dodo.own_command import OwnCommand
from sconify_tasks.errors import Interrupted, SconifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sconify_tasks.observers import Screen

_JOBS = {
    "name": "num_process",
    "short": "n",
    "long": "process",
    "type": int,
    "default": 0,
    "help": "steps that run at once [default: as many as there are processors]",
}
_CONTINUE = {
    "name": "continue",
    "short": "c",
    "long": "continue",
    "inverse": "no-continue",
    "type": bool,
    "default": False,
    "help": "go on with other steps when one has failed",
}
PROJECT_FILE = {
    "name": "project_file",
    "short": "f",
    "long": "file",
    "type": str,
    "default": "",
    "help": "project file [default: the nearest sconify.yaml, upwards from here]",
}
_VERBOSE = option("verbose", "print what was made and why; keys, environment and secrets are masked", default=False, short="v")


class Sconify(OwnCommand):
    """Build the confidential images of a project. Prints `IMAGE NAMESPACE/SESSION` lines on stdout."""

    name = "sconify"
    doc_purpose = "make confidential images of the native images in sconify.yaml"
    doc_usage = "[IMAGE ...]"
    doc_description = "IMAGE is a name of sconify.yaml, or a pattern such as 'api-*'. Without one, all images are made."
    execute_tasks = False
    cmd_options = (_JOBS, _CONTINUE, PROJECT_FILE, _VERBOSE, *MACHINE_OPTIONS)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Return the exit code (see `sconify_tasks.errors`)."""
        screen = _Screen(no_color=opt_values["no_color"], verbose=opt_values["verbose"])
        try:
            code = _built(opt_values, pos_args, screen)
        except SconifyError as error:
            screen().error(error)
            code = error.exit_code
        except KeyboardInterrupt:
            screen().error(Interrupted("interrupted", hint="finished steps are kept: run it again to go on"))
            code = Interrupted.exit_code
        from sconify_tasks.ending import over

        return over(code)


def _built(opt_values: dict[str, Any], pos_args: list[str], screen: Callable[[], Screen]) -> int:
    from sconify_dodo.project_build import Request, build_project

    request = Request(
        patterns=tuple(pos_args),
        file=opt_values["project_file"],
        jobs=opt_values["num_process"],
        keep_going=opt_values["continue"],
        verbose=opt_values["verbose"],
        explain=opt_values["explain"],
        events=opt_values["events"],
        trace=opt_values["trace"],
    )
    return build_project(request, screen=screen)


class _Screen:
    """What is shown on stderr, made when there is something to say."""

    def __init__(self, *, no_color: bool, verbose: bool) -> None:
        self._no_color, self._verbose = no_color, verbose
        self._made: Screen | None = None

    def __call__(self) -> Screen:
        if self._made is None:
            from sconify_tasks.observers import screen_for

            self._made = screen_for(sys.stderr, os.environ, no_color=self._no_color, verbose=self._verbose)
        return self._made
