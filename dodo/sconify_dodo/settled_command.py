"""`sconify_image` started again with the same words: what is settled is said without reading them.

What is noted belongs to one folder and one whole command line, secrets in it as a keyed digest. Words that ask to look at what
a build does are never noted, so nothing here need know them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sconify_tasks.environment import Environment, read_environment
from sconify_tasks.errors import SconifyError
from sconify_tasks.settled.recollection import Recollection, recall

if TYPE_CHECKING:
    from sconify_dodo.front import Order
    from sconify_tasks.build import Build
    from sconify_tasks.settled.record import SettledImage

_PLACES = ("state", "cache", "shared-cache", "root-key")


def recollect(arguments: Sequence[str], variables: Mapping[str, str], folder: Path, *, begun: int) -> Recollection | None:
    """What is settled of this command line. None where there is nothing; the run itself then says what is wrong, if it is.

    Where state and cache lie is taken from the words as they stand. A word that means something else than it seems to can
    only lead to a place where nothing is noted for these words.
    """
    if not arguments:
        return None
    places = dict.fromkeys(_PLACES, "") | _given(arguments)
    try:
        environment = read_environment(variables).with_options(places)
        return recall_command(arguments, environment, folder, root_key_file=places["root-key"], begun=begun)
    except SconifyError:
        return None


def recall_command(
    arguments: Sequence[str], environment: Environment, folder: Path, *, root_key_file: str, begun: int
) -> Recollection | None:
    """What is settled of this command line in these surroundings."""
    file = folder / root_key_file if root_key_file else None
    return recall(environment, place=["command", str(folder), *arguments], begun=begun, root_key_file=file)


def say_settled(
    images: Sequence[SettledImage], arguments: Sequence[str], variables: Mapping[str, str], stdout: TextIO, stderr: TextIO
) -> None:
    """What a plan that finds nothing to do says: the warnings, and NAMESPACE/SESSION on stdout."""
    for image in images:
        texts = [*image.warnings]
        if image.demands_production:
            from sconify_tasks.simulation import simulation_warning

            texts.append(simulation_warning([image.to]))
        if texts:
            from sconify_tasks.observers import screen_for

            screen = screen_for(stderr, variables, no_color="--no-color" in arguments)
            for text in texts:
                screen.warn(text)
        stdout.write(f"{image.session}\n")
    stdout.flush()


def keep(recollection: Recollection, order: Order, warnings: Sequence[str], builds: Mapping[str, Build]) -> None:
    """Note the build, if it is done."""
    from sconify_dodo.front import demands_production
    from sconify_tasks.settled.gather import Note
    from sconify_tasks.settled.record import Origin
    from sconify_tasks.settled.watch import Watching

    digest = recollection.digest([str(order.resources), dict(order.options)])
    note = Note(
        options=digest,
        warnings=tuple(warnings),
        demands_production=demands_production(order.options),
        resources=order.resources,
    )
    # No project file, no variable: the words are all there is, and they are the place.
    origin = Origin(watch=Watching().done(), variables=recollection.variables(()), names=(order.name,), chosen=(order.name,))
    recollection.keep(builds, dict.fromkeys(builds, note), origin=origin, options={order.name: digest})


def _given(arguments: Sequence[str]) -> dict[str, str]:
    found = {}
    for at, word in enumerate(arguments):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in _PLACES:
            found[name] = value if equals else next(iter(arguments[at + 1 : at + 2]), "")
    return found
