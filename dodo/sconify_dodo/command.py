"""`doit sconify [IMAGE…]`: the images of the nearest sconify.yaml, in any folder, with no dodo.py.

The command brings its own loader: a dodo.py, broken or not, and the tasks in it are not looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from doit.cmd_base import Command

from sconify_dodo.machine_options import MACHINE_OPTIONS
from sconify_tasks.errors import Interrupted, SconifyError, UsageError

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
_FILE = {
    "name": "project_file",
    "short": "f",
    "long": "file",
    "type": str,
    "default": "",
    "help": "project file [default: the nearest sconify.yaml, upwards from here]",
}
_VERBOSE = {
    "name": "verbose",
    "short": "v",
    "long": "verbose",
    "type": bool,
    "default": False,
    "help": "print what was made and why; keys, environment and secrets are masked",
}


class Sconify(Command):  # type: ignore[misc]
    """Build the confidential images of a project. Prints `IMAGE NAMESPACE/SESSION` lines on stdout."""

    name = "sconify"
    doc_purpose = "make confidential images of the native images in sconify.yaml"
    doc_usage = "[IMAGE ...]"
    doc_description = "IMAGE is a name of sconify.yaml, or a pattern such as 'api-*'. Without one, all images are made."
    execute_tasks = False
    cmd_options = (_JOBS, _CONTINUE, _FILE, _VERBOSE, *MACHINE_OPTIONS)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Return the exit code (see `sconify_tasks.errors`)."""
        from sconify_tasks.observers import observed, screen_for

        screen = screen_for(sys.stderr, os.environ, no_color=opt_values["no_color"], verbose=opt_values["verbose"])
        try:
            with observed(screen, stdout=sys.stdout, events=opt_values["events"], trace=opt_values["trace"]) as observation:
                observation.code = _execute(opt_values, pos_args, screen, observation)
        except SconifyError as error:
            screen.error(error)
            return error.exit_code
        except KeyboardInterrupt:
            screen.error(Interrupted("interrupted", hint="finished steps are kept: run it again to go on"))
            return Interrupted.exit_code
        return observation.code


def _execute(options: dict[str, Any], patterns: Sequence[str], screen: Any, observation: Any) -> int:
    from sconify_dodo.front import Order, default_jobs, full_session_name, resources_folder, run
    from sconify_tasks.chains import in_order, upstream_images
    from sconify_tasks.environment import read_environment
    from sconify_tasks.option_checks import check
    from sconify_tasks.project import find_project, load_project, project_of
    from sconify_tasks.world import open_world

    if options["num_process"] < 0:
        raise UsageError(f"-n {options['num_process']} is no number of steps", hint="0 means one a processor")
    environment = read_environment(os.environ)
    place = project_of(Path(options["project_file"])) if options["project_file"] else find_project(Path.cwd())
    project = load_project(place.root, variables=environment.variables)
    chosen = _selected(tuple(project.images), patterns) if patterns else project.images_of(place.nearest)
    folder = resources_folder(environment, project.folder)
    orders = []
    upstream = upstream_images(project.images)
    for name in in_order(chosen, upstream):
        image = project.images[name]
        try:
            warnings = check(image)
        except SconifyError as error:
            raise type(error)(f"{project.origins[name][0]}: images.{name}: {error.message}", hint=error.hint) from None
        for warning in warnings:
            screen.warn(f"{name}: {warning}")
        orders.append(Order(name=name, options=image, resources=folder / name, upstream=upstream.get(name, ())))
    world = open_world(environment, project=project.name, events=observation.stream, explain=options["explain"])
    try:
        jobs = options["num_process"] or default_jobs()
        code = run(world, orders, jobs=jobs, keep_going=options["continue"], debug=False, verbose=options["verbose"])
        if code == 0:
            observation.results += [f"{order.name} {full_session_name(world, order.options)}" for order in orders]
    finally:
        world.close()
    return code


def _selected(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern fits, in the file's order; UsageError for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            from sconify_tasks.yaml_nodes import suggestion

            raise UsageError(
                f"no image {pattern} in sconify.yaml", hint=suggestion(pattern, names) or f"there are: {', '.join(names)}"
            )
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
