"""What `doit sconify` does: ask what is settled, read the project only where something is not, build that.

A run that finds nothing to do opens no project file and loads nothing of what reads, plans and builds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sconify_tasks.environment import Environment, read_environment
from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.settled.recollection import Recollection, recall

if TYPE_CHECKING:
    from sconify_dodo.front import Order
    from sconify_tasks.build import Build
    from sconify_tasks.observers import Run, Screen
    from sconify_tasks.project import Found, Project
    from sconify_tasks.settled.gather import Gathered, Note
    from sconify_tasks.settled.record import Origin, SettledImage
    from sconify_tasks.settled.watch import Watch

_SHOWN = 3
"""Images that are named where there are too many for one line."""


class Request(Struct, frozen=True, kw_only=True):
    """What was asked for. `file` is empty where the nearest project file is meant; `jobs` 0 is one a processor."""

    patterns: Sequence[str] = ()
    file: str = ""
    jobs: int = 0
    keep_going: bool = False
    verbose: bool = False
    explain: bool = False
    events: str = ""
    trace: str = ""

    @property
    def look(self) -> bool:
        """Whether somebody wants to see what a plan finds: then it is made."""
        return bool(self.verbose or self.explain or self.events or self.trace)


def build_project(request: Request, *, screen: Callable[[], Screen]) -> int:
    """Build; print `IMAGE NAMESPACE/SESSION` lines on stdout; return the exit code. `screen` is made when needed."""
    begun = time.time_ns()
    if request.jobs < 0:
        raise UsageError(f"-n {request.jobs} is no number of steps", hint="0 means one a processor")
    environment = read_environment(os.environ)
    recollection = recollect(environment, request.file, begun=begun)
    if recollection is not None and not request.look:
        found = recollection.nothing_to_do(lambda origin: _chosen(origin, request.patterns))
        if found is not None:
            _say_settled(found, screen)
            return 0
    from sconify_tasks.observers import observed

    with observed(screen(), stdout=sys.stdout, events=request.events, trace=request.trace) as run:
        run.code = _build(request, environment, recollection, begun=begun, screen=screen(), run=run)
    return run.code


def recollect(environment: Environment, file: str, *, begun: int) -> Recollection | None:
    """What is settled for the project that is seen from here."""
    return recall(environment, place=["project", str(Path.cwd()), file], begun=begun)


def _build(
    request: Request, environment: Environment, recollection: Recollection | None, *, begun: int, screen: Screen, run: Run
) -> int:
    from sconify_dodo.front import build_all, default_jobs, full_session_name
    from sconify_tasks.world import open_world

    ordered = read_project(environment, file=request.file, patterns=request.patterns)
    for name, texts in ordered.warnings.items():
        for text in texts:
            screen.warn(f"{name}: {text}")
    orders = ordered.orders
    world = open_world(
        environment, project=ordered.project.name, events=run.stream, explain=request.explain, verbose=request.verbose
    )
    try:
        if recollection is None:  # the world has just made the root key
            recollection = recollect(environment, request.file, begun=begun)
        keeper = _Keeper(
            recollection=recollection,
            ordered=ordered,
            digests=_digests(recollection, ordered),
            by_name={order.name: order for order in orders},
        )
        result = build_all(
            world,
            orders,
            jobs=request.jobs or default_jobs(),
            keep_going=request.keep_going,
            debug=False,
            settled=frozenset() if request.look else keeper.settled(),
            keep=keeper.keep,
            gather=keeper.gather,
        )
        if result.code == 0 or request.keep_going:
            done = [order for order in orders if order.name in result.done]
            run.results += [f"{order.name} {full_session_name(world, order.options)}" for order in done]
    finally:
        world.close()
    return result.code


class Ordered(Struct, frozen=True, kw_only=True):
    """A project, where it was found, and what is to be made of it: upstream images first, warnings by image."""

    place: Found
    project: Project
    upstream: Mapping[str, tuple[str, ...]]
    orders: list[Order]
    warnings: Mapping[str, tuple[str, ...]]


def read_project(environment: Environment, *, file: str = "", patterns: Sequence[str] = ()) -> Ordered:
    """Read the project of `file`, or the nearest one, and order the images that `patterns` fit, or those of this place."""
    from sconify_tasks.chains import in_order, upstream_images
    from sconify_tasks.project import find_project, load_project, project_of

    place = project_of(Path(file)) if file else find_project(Path.cwd())
    project = load_project(place.root, variables=environment.variables)
    upstream = upstream_images(project.images)
    chosen = selected(tuple(project.images), patterns) if patterns else project.images_of(place.nearest)
    orders, warnings = _orders_of(project, environment, in_order(chosen, upstream), upstream)
    return Ordered(place=place, project=project, upstream=upstream, orders=orders, warnings=warnings)


def _orders_of(
    project: Project, environment: Environment, names: Sequence[str], upstream: Mapping[str, tuple[str, ...]]
) -> tuple[list[Order], dict[str, tuple[str, ...]]]:
    """The orders for these images of a project, and the warnings for each. UsageError names the image that can't be."""
    from sconify_dodo.front import Order, resources_folder
    from sconify_tasks.option_checks import check

    folder = resources_folder(environment, project.folder)
    orders, warnings = [], {}
    for name in names:
        image = project.images[name]
        try:
            warnings[name] = tuple(check(image))
        except SconifyError as error:
            raise type(error)(f"{project.origins[name][0]}: images.{name}: {error.message}", hint=error.hint) from None
        orders.append(Order(name=name, options=image, resources=folder / name, upstream=upstream.get(name, ())))
    return orders, warnings


def selected(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern fits, in the file's order; UsageError for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            from sconify_tasks.yaml_nodes import suggestion

            raise UsageError(
                f"no image {pattern} in sconify.yaml",
                hint=suggestion(pattern, names) or f"there are {len(names)}: {', '.join(names[:_SHOWN])}, …",
            )
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def _chosen(origin: Origin, patterns: Sequence[str]) -> Sequence[str] | None:
    """What a run builds; None where a pattern fits none: the project is then read, and the error says what there is."""
    if not patterns:
        return origin.chosen
    known = frozenset(origin.names)
    if all(pattern in known for pattern in patterns):
        found = [name for name in origin.names if name in patterns]
    else:
        try:
            found = selected(origin.names, patterns)
        except UsageError:
            return None
    if not origin.upstream:
        return found
    from sconify_tasks.chains import in_order

    return in_order(found, origin.upstream)


def _say_settled(images: list[SettledImage], screen: Callable[[], Screen]) -> None:
    for image in images:
        for warning in image.warnings:
            screen().warn(f"{image.name}: {warning}")
    demanding = [image.name for image in images if image.demands_production]
    if demanding:
        from sconify_tasks.simulation import simulation_warning

        screen().warn(simulation_warning(demanding))
    sys.stdout.write("".join(f"{image.name} {image.session}\n" for image in images))
    sys.stdout.flush()


class _Keeper(Struct, frozen=True, kw_only=True):
    """Between the recollection, if there is one, and a project's orders."""

    recollection: Recollection | None
    ordered: Ordered
    digests: Mapping[str, str]
    by_name: Mapping[str, Order]

    def settled(self) -> frozenset[str]:
        """The images among the orders that need no plan."""
        if self.recollection is None:
            return frozenset()
        return self.recollection.among(self.digests)

    def gather(self, build: Build, groups: Mapping[str, Watch]) -> Gathered | None:
        """See `build_all`."""
        if self.recollection is None:
            return None
        return self.recollection.gather(build, self._note(build.name), groups=groups)

    def keep(self, builds: Mapping[str, Build], gathered: Mapping[str, Gathered]) -> None:
        """See `build_all`."""
        if self.recollection is not None:
            self.recollection.keep(
                builds,
                {name: self._note(name) for name in builds},
                origin=self._origin(self.recollection),
                options=self.digests,
                gathered=gathered,
            )

    def _note(self, name: str) -> Note:
        from sconify_dodo.front import demands_production
        from sconify_tasks.settled.gather import Note

        order = self.by_name[name]
        return Note(
            options=self.digests[name],
            warnings=self.ordered.warnings[name],
            demands_production=demands_production(order.options),
            resources=order.resources,
        )

    def _origin(self, recollection: Recollection) -> Origin | None:
        """What the parse depended on, and the places of project files that would be nearer than these.

        None where a file was written so late that its stat does not tell yet.
        """
        from sconify_tasks.chains import in_order
        from sconify_tasks.settled.recollection import glob_origin
        from sconify_tasks.settled.record import Origin
        from sconify_tasks.settled.watch import TooNewError, Watching

        place, project, upstream = self.ordered.place, self.ordered.project, self.ordered.upstream
        watching = Watching()
        try:
            for path in (*project.sources, *_passed(place)):
                if path in project.sources or path.is_file():
                    watching.file(path, before=recollection.begun)
                else:
                    watching.missing(path)
        except (TooNewError, OSError):
            return None
        return Origin(
            watch=watching.done(),
            globs=tuple(glob_origin(glob.folder, glob.pattern, glob.found) for glob in project.globs),
            variable_names=tuple(sorted(project.variables)),
            variables=recollection.variables(project.variables),
            names=tuple(project.images),
            chosen=tuple(in_order(project.images_of(place.nearest), upstream)),
            upstream={name: tuple(needs) for name, needs in upstream.items()},
        )


def _digests(recollection: Recollection | None, ordered: Ordered) -> dict[str, str]:
    """What stands for the options of each order. Another version's defaults are another program's: nothing is known of that."""
    if recollection is None:
        return {}
    digest, project = recollection.digest, ordered.project.name
    return {order.name: digest([project, str(order.resources), order.options.given()]) for order in ordered.orders}


def _passed(place: Found) -> list[Path]:
    """Every place of a project file from here up to the root's, there or not."""
    here = Path.cwd()
    nearest = [here, *here.parents] if place.nearest.parent in (here, *here.parents) else [place.nearest.parent]
    folders = [*nearest, *place.nearest.parent.parents]
    return [folder / place.root.name for folder in folders if folder.is_relative_to(place.root.parent)]
