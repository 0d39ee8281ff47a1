"""What every step of a run shares: the store, the action cache, keys, places, and doors to what lies outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.flights import Flights
from sconify_cache.gc import building, collect_daily
from sconify_cache.index import Index
from sconify_cache.keys import Action
from sconify_cache.local import LocalStore, hash_stream
from sconify_cache.record import Record
from sconify_cache.shared import SharedCache
from sconify_cache.stat import StatCache, save_all
from sconify_tasks.environment import Environment
from sconify_tasks.errors import StoreError, UnavailableError, UsageError
from sconify_tasks.events import Stream, Subscriber, Warned
from sconify_tasks.image.listing import list_images
from sconify_tasks.image.opened import OpenedSource, OpenedSources
from sconify_tasks.image.references import parse_reference, split_transport
from sconify_tasks.image.sinks import Sinks
from sconify_tasks.keys import ROOT_KEY_BYTES, Keys, known_root_key, load_root_key

if TYPE_CHECKING:
    from docker import DockerClient

    from sconify_tasks.cas.embedded import EmbeddedCas
    from sconify_tasks.cas.interface import Cas
    from sconify_tasks.image.learned import LayerMemory
    from sconify_tasks.memory_budget import Admission
    from sconify_tasks.signing.choose import ChosenSigner
    from sconify_tasks.trees import Trees

# Loading a large image takes an engine minutes, in which it says nothing.
_ENGINE_SECONDS = 900
RUNTIMES = Path(__file__).parent / "runtime" / "bin"


@dataclass(kw_only=True)
class World:
    """One run's surroundings. Everything that costs something is opened when it is first used."""

    environment: Environment
    keys: Keys
    store: LocalStore
    actions: ActionCache
    shared: SharedCache | None = None
    events: Stream = field(default_factory=Stream)
    explain: bool = False
    verbose: bool = False
    read_only: bool = False
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    sources: OpenedSources = field(default_factory=OpenedSources)
    flights: Flights = field(init=False)
    _docker: DockerClient | None = None
    signers: dict[object, ChosenSigner] = field(default_factory=dict)
    _stat_caches: list[StatCache] = field(default_factory=list)
    _embedded: dict[str, EmbeddedCas] = field(default_factory=dict)
    _embedding: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.flights = Flights(self.environment.cache / "flights")

    @property
    def state(self) -> Path:
        """The state folder: root key, CAS, simulated platform, local images."""
        return self.environment.state

    @property
    def images(self) -> Path:
        """The local OCI store: bare names, where no engine answers."""
        return self.state / "images"

    def runtime(self, architecture: str) -> Path:
        """The runtime for an OCI architecture; UsageError where there is none."""
        path = RUNTIMES / f"runtime-{architecture}"
        if not path.is_file():
            raise UsageError(f"there is no runtime for the architecture {architecture}", hint="amd64 and arm64 are supported")
        return path

    @cached_property
    def runtimes_digest(self) -> str:
        """BLAKE3 over all runtimes: another runtime is another toolchain."""
        from blake3 import blake3

        digests = []
        for path in sorted(RUNTIMES.glob("runtime-*")):
            with path.open("rb") as file:
                digests.append(f"{path.name} {hash_stream(file)}\n")
        return Digest(blake3("".join(digests).encode()).hexdigest())

    def stat_cache(self, source: str) -> StatCache | None:
        """The memory of content ids below a `dir:` source; other sources need none."""
        if not source.startswith("dir:"):
            return None
        from blake3 import blake3

        folder = os.fsencode(Path(source.removeprefix("dir:")).absolute())
        generation = Digest(blake3(b"sconify/content-id", key=self.keys.content_id_key()).hexdigest())
        file = self.environment.cache / "stat" / "stat.db"
        found = StatCache(file, generation=generation, roots=(folder,), now=lambda: int(self.now().timestamp() * 10**9))
        self._stat_caches.append(found)
        return found

    @cached_property
    def layer_memory(self) -> LayerMemory | None:
        """What was found in layers of images in files; None where nothing is to be kept."""
        from sconify_tasks.layer_memory import StoredLayerMemory

        if self.read_only:
            return None
        return StoredLayerMemory(store=self.store, actions=self.actions, key=self.keys.content_id_key())

    @cached_property
    def memory(self) -> Admission:
        """What the steps that run at once may use."""
        from sconify_tasks.memory_budget import MemoryBudget, default_limit

        given = self.environment.memory
        return MemoryBudget(default_limit() if given is None else given)

    @cached_property
    def trees(self) -> Trees:
        """The trees that steps hand on."""
        from sconify_tasks.trees import Trees

        return Trees(store=self.store)

    @cached_property
    def sinks(self) -> Sinks:
        """Where images go. An engine is asked once a run what it has."""
        return Sinks(docker=self.docker, default_oci_store=self.images, listing=lambda: self.engine_images)

    @cached_property
    def engine_images(self) -> dict[str, str] | None:
        """What the engine had when this run first asked: its Id by name; None where only the SDK can tell."""
        return list_images(self.environment.docker_host)

    def delivered(self, name: str) -> None:
        """Note that this run wrote an image there: what the engine had under that name before no longer counts."""
        if self._engine_id(name) is not None and self.engine_images is not None:
            del self.engine_images[parse_reference(split_transport(name)[1]).familiar]

    def identity(self, name: str, platform: str, source: OpenedSource) -> str:
        """The identity of a source, without opening it where the engine still has what was looked at before.

        An engine's Id is a digest of the image, whatever it is a digest of there: equal Ids mean equal images.
        """
        engine_id = self._engine_id(name)
        if engine_id is None:
            return source().identity
        action = Action(step="identity", version=1, inputs={"id": engine_id}, options={"platform": platform})
        record = self.actions.lookup(action.key)
        if record is not None:
            source.expect(str(record.facts["identity"]))
            return str(record.facts["identity"])
        opened = source()
        # The name may mean another image by now than when it was listed.
        if getattr(opened, "engine_id", None) == engine_id:
            self.actions.record(Record.of(action, outputs={}, facts={"identity": opened.identity}, secret=True))
        return opened.identity

    def _engine_id(self, name: str) -> str | None:
        transport, rest = split_transport(name)
        if transport not in {"", "docker"} or name == "scratch" or self.engine_images is None:
            return None
        return self.engine_images.get(parse_reference(rest).familiar)

    def docker(self) -> DockerClient:
        """A client of the engine that DOCKER_HOST names, or the local one; UnavailableError where none answers."""
        if self._docker is None:
            self._docker = connect_engine(self.environment)
        return self._docker

    def cas(self, options: Mapping[str, Any], pin: str | None) -> Cas:
        """The CAS of these options under its pin; the embedded one is opened once a run."""
        from sconify_tasks.cas.choose import open_embedded_cas, open_remote_cas

        if options["cas"] is not None:
            return open_remote_cas(options, home=self.environment.home, pin=pin)
        with self._embedding:
            identity = str(options["identity"])
            if identity not in self._embedded:
                self._embedded[identity] = open_embedded_cas(options, state=self.state, home=self.environment.home)
            return self._embedded[identity]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the store's lease: what is found in the store from now on, a prune leaves alone."""
        with building(self.environment.cache / "store"):
            try:
                yield
            finally:
                self._close_cas()
        self._keep_to_size()

    def _keep_to_size(self) -> None:
        """After a build that had something to do: make the cache as small as SCONIFY_CACHE_SIZE says, at most once a day."""
        if self.environment.cache_size is None:
            return
        index = Index(self.environment.cache / "actions")
        try:
            collect_daily(
                self.store,
                folder=self.environment.cache / "store",
                now_ns=int(self.now().timestamp() * 10**9),
                index=index,
                max_bytes=self.environment.cache_size,
            )
        except StoreError as error:
            self.events.emit(Warned(message=f"the cache could not be made smaller: {error}"))
        finally:
            index.close()

    def let_go(self) -> None:
        """Keep what was learned, and close what a fork must not share with its parent. It is opened again when needed."""
        # It only saves time: that it can't be kept must not hide how the run ended.
        with suppress(StoreError):
            save_all([] if self.read_only else self._stat_caches)
        self._close_cas()
        self.actions.close()
        self.flights.close()

    def forked(self, emit: Subscriber, memory: Admission) -> list[object]:
        """In a forked child: open connections and images of its own when needed, and emit to `emit` alone.

        Returns what was the parent's: to be held, so that nothing closes or removes it at this process's end.
        """
        parents: list[object] = [
            *self.sources.abandon(),
            self._docker,
            self.__dict__.pop("sinks", None),
            *self.events.subscribers,
        ]
        self._docker, self._stat_caches, self.memory = None, [], memory
        self.events.subscribers[:] = [emit]
        return parents

    def close(self) -> None:
        """Keep what was learned, and let go of images and connections."""
        self.sources.close()
        self.let_go()
        if self._docker is not None:
            self._docker.close()

    def _close_cas(self) -> None:
        for cas in self._embedded.values():
            cas.close()


def open_world(
    environment: Environment,
    *,
    project: str,
    events: Stream,
    root_key_file: Path | None = None,
    explain: bool = False,
    verbose: bool = False,
) -> World:
    """Open the world of a project, once a run: what killed runs left in the store's scratch folder is removed.

    The state folder and the root key in it are made when there is none yet.
    """
    for folder in (environment.state, environment.cache):
        _make(folder)
    root = load_root_key(environment.state, given=environment.root_key, file=root_key_file)
    keys = Keys(root=root, project=project)
    store = LocalStore(environment.cache / "store")
    store.sweep()
    actions = ActionCache(environment.cache / "actions", mac_key=keys.record_key())
    shared = _shared_cache(environment, keys, store, actions, events)
    return World(
        environment=environment,
        keys=keys,
        store=store,
        actions=actions,
        shared=shared,
        events=events,
        explain=explain,
        verbose=verbose,
    )


def look_at_world(environment: Environment, *, project: str, events: Stream) -> World:
    """Open the world of a project to look at it: nothing is made, removed or recorded.

    Where there is no root key yet, nothing was ever built under it: any other one finds just as little.
    """
    root = known_root_key(environment.state, given=environment.root_key) or os.urandom(ROOT_KEY_BYTES)
    keys = Keys(root=root, project=project)
    store = LocalStore(environment.cache / "store")
    actions = ReadingActions(environment.cache / "actions", mac_key=keys.record_key())
    return World(
        environment=environment,
        keys=keys,
        store=store,
        actions=actions,
        shared=_shared_cache(environment, keys, store, actions, events),
        events=events,
        read_only=True,
    )


def _shared_cache(
    environment: Environment, keys: Keys, store: LocalStore, actions: ActionCache, events: Stream
) -> SharedCache | None:
    """The cache that machines share, if there is one; trouble with it is a warning."""
    if environment.shared_cache is None:
        return None

    def trouble(error: StoreError) -> None:
        events.emit(Warned(message=str(error)))

    return SharedCache(environment.shared_cache, mac_key=keys.record_key(), store=store, actions=actions, trouble=trouble)


class ReadingActions(ActionCache):
    """An action cache that keeps nothing new."""

    def record(self, record: Record, *, scope: str | None = None) -> None:
        """Keep nothing."""

    def remember(self, scope: str, record: Record) -> None:
        """Keep nothing."""


def _make(folder: Path) -> None:
    """Make a folder for its owner alone; one that is there keeps its mode, as it may hold other things of the user's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another with --state and --cache, or SCONIFY_STATE and SCONIFY_CACHE"
        raise StoreError(f"{folder} can't be made: {error.strerror}", hint=hint) from error


def connect_engine(environment: Environment) -> DockerClient:
    """Return a client of the engine that the environment names; UnavailableError where none answers."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(environment=dict(environment.variables), timeout=_ENGINE_SECONDS)
        client.ping()
    except (DockerException, OSError) as error:
        where = environment.docker_host or "unix:///var/run/docker.sock"
        raise UnavailableError(f"no Docker Engine answers at {where}", hint="start it, or use oci: and dir: images") from error
    return client
