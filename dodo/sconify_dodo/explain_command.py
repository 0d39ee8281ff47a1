"""`doit explain [IMAGE…]`: what the next `doit sconify` would do, and why. Runs nothing and writes nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sconify_dodo.command import PROJECT_FILE
from sconify_dodo.machine_options import NO_COLOR, option
from sconify_dodo.own_command import OwnCommand
from sconify_tasks.errors import Interrupted, SconifyError

if TYPE_CHECKING:
    from sconify_tasks.explain import Explanation
    from sconify_tasks.ui import Lines

VERSION = 1
_JSON = option("json", "for machines (docs/explain.md)", default=False)
_VERBOSE = option(
    "verbose",
    "of cached steps too: by which rule each library was found, and what is not protected",
    default=False,
    short="v",
)


class Explain(OwnCommand):
    """Say of every step whether the next build runs it, and what changed."""

    name = "explain"
    doc_purpose = "say why confidential images are out of date, down to the file; runs and writes nothing"
    doc_usage = "[IMAGE ...]"
    doc_description = "IMAGE is a name of sconify.yaml, or a pattern such as 'api-*'. Without one, all images are explained."
    execute_tasks = False
    cmd_options = (PROJECT_FILE, _JSON, _VERBOSE, NO_COLOR)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Return the exit code (see `sconify_tasks.errors`)."""
        from sconify_tasks.ui import lines

        screen = lines(sys.stderr, no_color=opt_values["no_color"] or bool(os.environ.get("NO_COLOR")))
        try:
            explained = _explained(opt_values["project_file"], pos_args, screen)
            as_asked = _as_json if opt_values["json"] else _as_text
            sys.stdout.write(as_asked(explained, verbose=opt_values["verbose"]))
            sys.stdout.flush()
        except SconifyError as error:
            screen.error(error)
            return error.exit_code
        except KeyboardInterrupt:
            screen.error(Interrupted("interrupted"))
            return Interrupted.exit_code
        return 0


def _explained(file: str, patterns: Sequence[str], screen: Lines) -> list[Explanation]:
    from sconify_dodo.front import make_build
    from sconify_dodo.project_build import read_project
    from sconify_tasks.environment import read_environment
    from sconify_tasks.events import Stream
    from sconify_tasks.explain import explain
    from sconify_tasks.world import look_at_world

    environment = read_environment(os.environ)
    ordered = read_project(environment, file=file, patterns=patterns)
    world = look_at_world(environment, project=ordered.project.name, events=Stream([screen]))
    found: list[Explanation] = []
    delivered: set[str] = set()
    try:
        for order in ordered.orders:
            build = make_build(world, order)
            try:
                said = explain(build, after=tuple(name for name in order.upstream if name in delivered))
                found += said
                if any(one.step == "deliver" and one.state != "cached" for one in said):
                    delivered.add(order.name)
            finally:
                build.close()
    finally:
        world.close()
    return found


def _as_text(explained: Iterable[Explanation], *, verbose: bool) -> str:
    from sconify_tasks.ui import clean

    lines: list[str] = []
    for one in explained:
        for_what = [*one.waits, *(f"the image {clean(name)}" for name in one.images)]
        waits = f" for {', '.join(for_what)}" if one.state == "waits" else ""
        told = (*one.reasons, *(one.details if verbose else ()))
        lines.append(f"{clean(one.image)}: {one.step} {one.state}{waits}" + (":" if told else ""))
        lines += [f"    {clean(line)}" for line in told]
    return "".join(f"{line}\n" for line in lines)


def _as_json(explained: Iterable[Explanation], *, verbose: bool) -> str:
    from sconify_tasks.event_log import plain

    images: dict[str, list[dict[str, Any]]] = {}
    for one in explained:
        step = {"step": one.step, "state": one.state, "reasons": plain(one.reasons), "waits": plain(one.waits)}
        step["images"] = plain(one.images)
        if verbose:
            step["details"] = plain(one.details)
        images.setdefault(one.image, []).append(step)
    return json.dumps({"v": VERSION, "images": [{"image": name, "steps": steps} for name, steps in images.items()]}) + "\n"
