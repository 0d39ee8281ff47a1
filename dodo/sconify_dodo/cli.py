"""`sconify_image`: one image, from the command line. stdout carries NAMESPACE/SESSION and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sconify_tasks.errors import Interrupted, SconifyError

if TYPE_CHECKING:
    from sconify_tasks.observers import Run
    from sconify_tasks.options import Options


def main() -> int:
    """Entry point of the console script."""
    return run(sys.argv[1:], variables=os.environ, folder=Path.cwd(), stdout=sys.stdout, stderr=sys.stderr)


def run(arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, stdout: TextIO, stderr: TextIO) -> int:
    """Run the command; return the exit code."""
    from sconify_tasks.ui import lines

    screen = lines(stderr, no_color="--no-color" in arguments or bool(variables.get("NO_COLOR")))
    try:
        return _run(arguments, variables=variables, folder=folder, stdout=stdout, stderr=stderr)
    except SconifyError as error:
        screen.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        screen.error(Interrupted("interrupted", hint="finished steps are kept: run it again to go on"))
        return Interrupted.exit_code
    except BrokenPipeError:
        return 1


def _run(arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, stdout: TextIO, stderr: TextIO) -> int:
    from sconify_tasks.command_line import format_help, parse_arguments
    from sconify_tasks.observers import observed, screen_for
    from sconify_tasks.option_checks import check

    parsed = parse_arguments(arguments) if arguments else None
    if parsed is None or parsed.help:
        stdout.write(format_help())
        return 0
    options = parsed.options
    debug, verbose = options.flag("debug"), options.flag("verbose")
    screen = screen_for(stderr, variables, no_color=options.flag("no-color"), verbose=verbose, commands=debug)
    for warning in (*parsed.warnings, *check(options)):
        screen.warn(warning)
    if debug:
        screen.command(("sconify_image", *_masked(arguments)))
    with observed(screen, stdout=stdout, events=options.text("events"), trace=options.text("trace")) as observation:
        observation.code = _build(options, observation, variables=variables, folder=folder)
    return observation.code


def _build(options: Options, observation: Run, *, variables: Mapping[str, str], folder: Path) -> int:
    from sconify_dodo.front import Order, default_jobs, full_session_name, resources_folder
    from sconify_dodo.front import run as build
    from sconify_tasks.environment import read_environment
    from sconify_tasks.world import open_world

    environment = read_environment(variables).with_options(options)
    root_key_file = Path(options.text("root-key")) if options.text("root-key") else None
    explain = options.flag("explain")
    world = open_world(environment, project="", events=observation.stream, root_key_file=root_key_file, explain=explain)
    try:
        order = Order(name="", options=options, resources=resources_folder(environment, folder))
        code = build(
            world,
            [order],
            jobs=default_jobs(),
            keep_going=False,
            debug=options.flag("debug"),
            verbose=options.flag("verbose"),
        )
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
