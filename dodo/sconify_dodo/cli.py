"""`sconify_image`: one image, from the command line. stdout carries NAMESPACE/SESSION and nothing else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from msgspec import Struct

from sconify_tasks.errors import Interrupted, SconifyError

if TYPE_CHECKING:
    from sconify_dodo.front import Order
    from sconify_tasks.build import Build
    from sconify_tasks.environment import Environment
    from sconify_tasks.observers import Run
    from sconify_tasks.options import Options


def main() -> int:
    """Entry point of the console script."""
    from sconify_tasks.ending import over

    return over(run(sys.argv[1:], variables=os.environ, folder=Path.cwd(), stdout=sys.stdout, stderr=sys.stderr))


def run(arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, stdout: TextIO, stderr: TextIO) -> int:
    """Run the command; return the exit code."""

    def say(error: SconifyError) -> int:
        from sconify_tasks.ui import lines

        lines(stderr, no_color="--no-color" in arguments or bool(variables.get("NO_COLOR"))).error(error)
        return error.exit_code

    try:
        return _run(arguments, variables=variables, folder=folder, stdout=stdout, stderr=stderr)
    except SconifyError as error:
        return say(error)
    except KeyboardInterrupt:
        return say(Interrupted("interrupted", hint="finished steps are kept: run it again to go on"))
    except BrokenPipeError:
        return 1


def _run(arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, stdout: TextIO, stderr: TextIO) -> int:
    from sconify_dodo.settled_command import recollect, say_settled

    begun = time.time_ns()
    recollection = recollect(arguments, variables, folder, begun=begun)
    settled = None if recollection is None else recollection.nothing_to_do(lambda origin: origin.chosen)
    if settled is not None:
        say_settled(settled, arguments, variables, stdout, stderr)
        return 0
    from sconify_tasks.command_line import format_help, parse_arguments
    from sconify_tasks.environment import read_environment
    from sconify_tasks.observers import observed, screen_for
    from sconify_tasks.option_checks import check

    parsed = parse_arguments(arguments) if arguments else None
    if parsed is None or parsed.help:
        stdout.write(format_help())
        return 0
    options = parsed.options
    debug, verbose = options.flag("debug"), options.flag("verbose")
    screen = screen_for(stderr, variables, no_color=options.flag("no-color"), verbose=verbose, commands=debug)
    warnings = (*parsed.warnings, *check(options))
    for warning in warnings:
        screen.warn(warning)
    if debug:
        screen.command(("sconify_image", *_masked(arguments)))
    with observed(screen, stdout=stdout, events=options.text("events"), trace=options.text("trace")) as observation:
        call = _Call(arguments=arguments, warnings=warnings, folder=folder, begun=begun)
        observation.code = _build(options, observation, call, read_environment(variables).with_options(options))
    return observation.code


class _Call(Struct, frozen=True, kw_only=True):
    """How the command was started, and what was said of it. `begun` is in ns."""

    arguments: Sequence[str]
    warnings: Sequence[str]
    folder: Path
    begun: int

    def note(self, order: Order, environment: Environment, builds: Mapping[str, Build]) -> None:
        """Note a build that is done, unless somebody wanted to see what a plan finds: then it is made again."""
        if not any(order.options[name] for name in ("debug", "verbose", "explain", "events", "trace")):
            from sconify_dodo.settled_command import keep, recall_command

            key = order.options.text("root-key")
            found = recall_command(self.arguments, environment, self.folder, root_key_file=key, begun=self.begun)
            if found is not None:
                keep(found, order, self.warnings, builds)


def _build(options: Options, observation: Run, call: _Call, environment: Environment) -> int:
    from sconify_dodo.front import Order, build_all, default_jobs, full_session_name, resources_folder
    from sconify_tasks.world import open_world

    root_key_file = Path(options.text("root-key")) if options.text("root-key") else None
    world = open_world(
        environment,
        project="",
        events=observation.stream,
        root_key_file=root_key_file,
        explain=options.flag("explain"),
        verbose=options.flag("verbose"),
    )
    try:
        order = Order(name="", options=options, resources=resources_folder(environment, call.folder))
        code = build_all(
            world,
            [order],
            jobs=default_jobs(),
            keep_going=False,
            debug=options.flag("debug"),
            keep=lambda builds, _: call.note(order, environment, builds),
        ).code
        if code == 0:
            observation.results.append(full_session_name(world, options))
    finally:
        world.close()
    return code


def _masked(arguments: Sequence[str]) -> list[str]:
    """The command line without the values of secret options: what is shown ends up in logs."""
    from sconify_tasks.option_table import OPTIONS
    from sconify_tasks.policy.mask import MASKED

    secret = {f"--{name}" for option in OPTIONS if option.secret for name in (option.name, *option.aliases, *option.former)}
    words: list[str] = []
    waits = False
    for word in arguments:
        name, equals, _ = word.partition("=")
        words.append(MASKED if waits else f"{name}={MASKED}" if name in secret and equals else word)
        waits = not waits and word in secret
    return words
