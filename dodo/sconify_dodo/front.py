"""What both front doors do: open the world, make the builds, plan, and run what is stale."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from sconify_cache.keys import JSON
from sconify_dodo.plan import plan
from sconify_dodo.plan_all import Stale, Upstream, plan_all, say_left_out, waits_for, workers_for
from sconify_tasks.build import Build, Miss
from sconify_tasks.chains import delivered_to
from sconify_tasks.environment import Environment
from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.events import Detail, PlanMade, Warned
from sconify_tasks.image.opened import OpenedSource
from sconify_tasks.image.source import ContentWatcher, SourceImage
from sconify_tasks.options import Options, session_name
from sconify_tasks.signing.choose import choose_signer
from sconify_tasks.simulation import simulation_warning
from sconify_tasks.world import World

if TYPE_CHECKING:
    from sconify_dodo.worker import Gather
    from sconify_tasks.settled.gather import Gathered

_LARGEST_TEMPLATE = 1 << 20


class Order(Struct, frozen=True, kw_only=True):
    """One image to be built: its name in the output, its options, and where its build resources go.

    `upstream` names the images that it is made from: orders too, and earlier ones.
    """

    name: str
    options: Options
    resources: Path
    upstream: tuple[str, ...] = ()


def resources_folder(environment: Environment, folder: Path) -> Path:
    """Where the documented tool leaves build resources: /build-resources in a container, else beside the user."""
    return environment.documented_resources or folder / "build-resources"


def full_session_name(world: World, options: Options) -> str:
    """NAMESPACE/SESSION, as given or derived."""
    namespace = options.text("namespace") or world.keys.namespace(repository=repository(options))
    return f"{namespace}/{options.text('name') or session_name(options.text('to'))}"


def repository(options: Options) -> str:
    """TO without transport, folder and tag: what the image's keys are derived for, the same on every machine."""
    from sconify_tasks.image.references import repository_of

    return repository_of(options.text("to"))


def make_build(world: World, order: Order) -> Build:
    """One image's build. Nothing is opened yet."""
    options = order.options
    if options["identity"]:
        from sconify_tasks.cas.identity import load_identity

        load_identity(Path(options.text("identity")))  # else it would be missed after all the work was done
    epoch = options.number("key-epoch")
    to = repository(options)
    native = _source(world, options, "from")
    base = _source(world, options, "base")
    fspf_key = cache(lambda: world.keys.fspf_key(repository=to, epoch=epoch))
    signer = choose_signer(world, options)
    externals: dict[str, Callable[[], JSON]] = {
        "native": lambda: world.identity(options.text("from"), options.text("platform"), native),
        "base": lambda: world.identity(options.text("base"), options.text("platform"), base),
        "runtime": lambda: world.runtimes_digest,
        "fspf_key_id": lambda: world.keys.fspf_key_id(repository=to, epoch=epoch),
        "signer": signer.mrsigner,
        "epoch": lambda: world.environment.epoch,
        "session": lambda: full_session_name(world, options),
        "embedded_pin": lambda: _embedded_pin(world, options),
        "cas_roots": lambda: _cas_roots(options),
        "template": lambda: _template(options),
        "resources": lambda: str(order.resources),
    }
    return Build(
        name=order.name,
        options=options,
        world=world,
        steps=plan(options),
        externals=externals,
        native=native,
        base=base,
        fspf_key=fspf_key,
        signer=signer.signer,
    )


class Result(Struct, frozen=True, kw_only=True):
    """How a run ended: its exit code, and the images that have nothing left to do."""

    code: int
    done: frozenset[str]


def build_all(
    world: World,
    orders: list[Order],
    *,
    jobs: int,
    keep_going: bool,
    debug: bool,
    settled: frozenset[str] = frozenset(),
    keep: Callable[[Mapping[str, Build], Mapping[str, Gathered]], None] = lambda _builds, _gathered: None,
    gather: Gather = lambda _build, _groups: None,
) -> Result:
    """Plan every image, and run what is stale. A run that finds nothing to do imports no doit.

    `settled` images are known to have nothing to do; `keep` is told the builds that are done, before they are closed, and what
    the workers that made some of them did `gather` of those.
    A verbose world shows what was made: each Dockerfile, and each session with its secrets masked.
    """
    check_targets(orders)
    check_sessions(world, orders)
    kept = _kept(orders, settled)
    builds = {order.name: make_build(world, order) for order in orders if order.name not in kept}
    upstream = {order.name: order.upstream for order in orders if order.upstream}
    warn_of_simulation(world, orders)
    try:
        how = _How(jobs=jobs, keep_going=keep_going, debug=debug, gather=gather)
        code, gathered = _run(world, builds, upstream, how)
        done = {name: build for name, build in builds.items() if all(step.name in build.settled for step in build.steps)}
        if code == 0 and world.verbose:
            for order in orders:
                _show(world, builds[order.name], order)
        keep(done, gathered)
        return Result(code=code, done=kept | done.keys())
    finally:
        for build in builds.values():
            build.close()


def _kept(orders: list[Order], settled: frozenset[str]) -> frozenset[str]:
    """Of the settled images those that are made of settled ones only. An order comes after those that it is made from."""
    kept: set[str] = set()
    for order in orders:
        if order.name in settled and kept.issuperset(order.upstream):
            kept.add(order.name)
    return frozenset(kept)


class _How(Struct, frozen=True, kw_only=True):
    """How a run goes: `jobs` at once, on after a failure or not, and how its workers gather what is to be noted."""

    jobs: int
    keep_going: bool
    debug: bool
    gather: Gather


_Ended: TypeAlias = "tuple[int, Mapping[str, Gathered]]"
"""The exit code, and what workers gathered of their images."""


def _run(world: World, builds: Mapping[str, Build], upstream: Upstream, how: _How) -> _Ended:
    stale, failed = plan_all(builds, upstream, world.events, keep_going=how.keep_going)
    if not stale:
        return failed, {}
    # What was found before the lease was taken may have been pruned since: it is asked for again.
    with world.building():
        stale, _ = plan_all({name: builds[name] for name in stale}, upstream, world.events, keep_going=how.keep_going)
        waits = {name: waits_for(name, upstream, stale) for name in stale}
        for name, (build, misses) in stale.items():
            world.events.emit(_plan_made(name, build, misses, after=tuple(waits[name])))
        try:
            code, gathered = _run_stale(world, stale, waits, how)
        except KeyboardInterrupt:
            world.events.interrupted()
            raise
        if how.keep_going:
            say_left_out(stale, upstream, world.events)
    return code or failed, gathered


def _run_stale(world: World, stale: Stale, waits: Mapping[str, tuple[str, ...]], how: _How) -> _Ended:
    """Steps on threads; or, of many images, whole images in worker processes (docs/adr/0008-worker-processes.md)."""
    from sconify_dodo.tasks import NOWHERE, image_tasks, run_tasks, tasks_for

    state = world.environment.cache / "doit.db"
    count = workers_for(world, stale, waits, jobs=how.jobs)
    if not count:
        tasks = tasks_for(stale, waits=waits)
        return run_tasks(tasks, state=state, jobs=how.jobs, keep_going=how.keep_going, debug=how.debug), {}
    from sconify_dodo.workers import working

    with working(world, stale, count=count, state=state, keep_going=how.keep_going, gather=how.gather) as workers:
        code = run_tasks(image_tasks(workers), state=NOWHERE, jobs=1, keep_going=how.keep_going, debug=how.debug)
    return code, workers.gathered


def _plan_made(name: str, build: Build, misses: tuple[Miss, ...], *, after: tuple[str, ...]) -> PlanMade:
    stale = {miss.step.name for miss in misses}
    needs = {miss.step.name: tuple(sorted(miss.step.upstream() & stale)) for miss in misses}
    return PlanMade(image=name, steps=len(build.steps), stale=tuple(needs), needs=needs, after=after)


def check_targets(orders: list[Order]) -> None:
    """UsageError where two images would be written to one place, each over the other."""
    first: dict[object, str] = {}
    for order in orders:
        to = order.options.text("to")
        place = delivered_to(to) or to
        if place in first:
            raise UsageError(f"{first[place]} and {order.name} are both written to {to}", hint="give each image its own `to`")
        first[place] = order.name


def check_sessions(world: World, orders: list[Order]) -> None:
    """UsageError where two images would have one session: only the last one of them could start."""
    first: dict[str, str] = {}
    for order in orders:
        session = full_session_name(world, order.options)
        if session in first:
            raise UsageError(
                f"{first[session]} and {order.name} have one session, {session}",
                hint="give one of them another `name`; without it the name comes from the last folder and the tag of `to`",
            )
        first[session] = order.name


def demands_production(options: Options) -> bool:
    """Whether the session admits production enclaves only."""
    return not options.flag("allow-debug-mode") and not options.flag("disable-session-security-attestation")


def warn_of_simulation(world: World, orders: list[Order]) -> None:
    """Say once that the embedded toolchain makes simulated enclaves, where a session demands production ones."""
    demanding = [order.name or order.options.text("to") for order in orders if demands_production(order.options)]
    if demanding:
        world.events.emit(Warned(message=simulation_warning(demanding)))


def _show(world: World, build: Build, order: Order) -> None:
    from sconify_tasks.policy.mask import mask

    session = build.settled["policy"].blobs["session"]
    world.events.emit(Detail(message=mask(world.store.get(session).decode()).rstrip()))
    world.events.emit(Detail(message=(order.resources / "Dockerfile").read_text().rstrip()))


def default_jobs() -> int:
    """As many as there are processors for this process."""
    return len(os.sched_getaffinity(0))


def _source(world: World, options: Options, option: str) -> OpenedSource:
    def open_image() -> SourceImage:
        from sconify_tasks.image.references import open_source

        name = options.text(option)
        try:
            source = open_source(
                name,
                docker=world.docker,
                platform=options.text("platform"),
                stat_cache=world.stat_cache(name),
                content_key=world.keys.content_id_key(),
                default_oci_store=world.images,
                memory=world.layer_memory,
                watcher=_watcher(options) if option == "from" else None,
                base=option == "base",
                engine_host=world.environment.docker_host,
            )
        except UnavailableError as error:
            if option != "base":
                raise
            # There is no silent fallback: what an image is built on is part of what it is.
            hint = "pull or build it, or name another one; --base=scratch is none at all"
            raise UnavailableError(f"--base={name}: {error.message}", hint=hint) from error
        return source if option == "base" else _native(world, options, source)

    return world.sources.get((option, options.text(option), options.text("platform"), str(options["key-epoch"])), open_image)


def _watcher(options: Options) -> ContentWatcher | None:
    """Who looks at a folder's files while they are read for its identity: nobody but for --binary-fs."""
    if not options.flag("binary-fs"):
        return None
    from sconify_tasks.binary_fs.watching import watcher_of

    return watcher_of(options)


def _native(world: World, options: Options, source: SourceImage) -> SourceImage:
    """The source as a native image: of a confidential one that this project made, only what everybody may read."""
    from sconify_tasks.image.confidential import NativeSource

    def keys() -> list[bytes]:
        try:
            made_as = repository(options.but({"to": options["from"]}))
        except UsageError:
            return []  # a folder, or an archive: no image of ours is delivered there
        return [world.keys.fspf_key(repository=made_as, epoch=options.number("key-epoch"))]

    return NativeSource(source, keys=keys)


def _cas_roots(options: Options) -> JSON:
    """The roots that a remote CAS is attested under, by content: another file under the same name is another root."""
    if options["cas"] is None:
        return None
    from hashlib import sha256

    try:
        return [sha256(Path(path).read_bytes()).hexdigest() for path in options.texts("cas-root")]
    except OSError as error:
        raise UsageError(f"--cas-root={error.filename} can't be read: {error.strerror}") from None


def _template(options: Options) -> JSON:
    """The text of `--template`, or None."""
    if options["template"] is None:
        return None
    path = Path(options.text("template"))
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_TEMPLATE + 1).decode()
    except OSError as error:
        raise UsageError(f"--template={path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--template={path} can't be read: it is no UTF-8") from None
    if len(text) > _LARGEST_TEMPLATE:
        raise UsageError(f"--template={path} is larger than {_LARGEST_TEMPLATE} bytes")
    return text


def _embedded_pin(world: World, options: Mapping[str, object]) -> JSON:
    """The embedded CAS's key; the CAS is made by the first build that needs it."""
    if options["cas"] is not None:
        return None
    from sconify_tasks.cas import cas_key

    known = cas_key.pin(world.state / "cas")
    if known is None and not world.read_only:
        from sconify_tasks.cas.embedded import open_embedded

        known = open_embedded(world.state).spki_hash
    return known
