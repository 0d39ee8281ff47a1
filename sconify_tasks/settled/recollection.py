"""What a door asks before it makes a plan, and what it tells when a run has ended well."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sconify_cache.ticks import FINE_NS
from sconify_tasks.environment import Environment
from sconify_tasks.errors import SconifyError
from sconify_tasks.settled.form import Memory
from sconify_tasks.settled.memory import keyed, load_memory, memory_file, save_memory, settled_key
from sconify_tasks.settled.program import program_signature
from sconify_tasks.settled.record import Origin, SettledImage
from sconify_tasks.settled.sight import Sight
from sconify_tasks.settled.signature import settled_before
from sconify_tasks.settled.watch import Watch

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.settled.gather import Gathered, Note

# The store's "last use" is exact to a day: a plan is made at least once a day, so that a prune knows what is in use.
_VALID_NS: Final = 24 * 3600 * 10**9
SETTLES_SECONDS: Final = FINE_NS / 10**9
"""After this long the stat of what a build wrote tells the next write."""


@dataclass(slots=True, kw_only=True)
class Recollection:
    """One run's view of what is settled in the place that it was started from. `begun` is when the run began, in ns."""

    environment: Environment
    begun: int
    file: Path
    key: bytes = field(repr=False)
    memory: Memory
    sight: Sight
    _holding: dict[str, bool] = field(default_factory=dict)

    def nothing_to_do(self, choose: Callable[[Origin], Sequence[str] | None]) -> list[SettledImage] | None:
        """The chosen images, if all are settled; None where a plan is to be made. No project file is opened.

        `choose` picks the images; None where it can't.
        """
        origin = self.memory.origin
        if origin is None or not self._same_origin(origin):
            return None
        chosen = choose(origin)
        if chosen is None or not all(self.is_settled(name) for name in chosen):
            return None
        found = [self.memory.images[name] for name in chosen]
        if len({image.to for image in found}) < len(found):
            return None  # each would be written over the other: the plan says so
        if self.sight.opened_shared:
            self._save()
        return found

    def among(self, options: Mapping[str, str]) -> frozenset[str]:
        """Which images are settled with these options (keyed digests, `digest`)."""
        settled = {
            name
            for name, digest in options.items()
            if name in self.memory.images and self.memory.images[name].options == digest and self.is_settled(name)
        }
        return frozenset(settled)

    def is_settled(self, name: str) -> bool:
        """Whether an image has nothing left to do."""
        if name not in self._holding:
            image = self.memory.images.get(name)
            fresh = image is not None and 0 <= self.begun - image.noted < _VALID_NS
            self._holding[name] = image is not None and fresh and self.sight.holds(image)
        return self._holding[name]

    def digest(self, value: object) -> str:
        """A keyed digest of options, or of variables."""
        return keyed(self.key, value)

    def gather(self, build: Build, note: Note, *, groups: Mapping[str, Watch], sight: Sight | None = None) -> Gathered | None:
        """What is to be noted of a build that is done; None where that can't be told: not yet, or never.

        `SETTLES_SECONDS` after its last write at the earliest. See `gather.gather` for `groups`. `sight` is from after the last
        write of all images that it is used for.
        """
        from sconify_tasks.settled.gather import gather

        seen = sight or _sight(self.environment, self.memory)
        return gather(build, note, sight=seen, begun=self.begun, groups=groups)

    def keep(
        self,
        builds: Mapping[str, Build],
        notes: Mapping[str, Note],
        *,
        origin: Origin | None,
        options: Mapping[str, str],
        gathered: Mapping[str, Gathered] = MappingProxyType({}),
    ) -> None:
        """Note the builds that are done, `gathered` or not yet.

        What was noted of other images stays, if their options are what they were.
        """
        if builds.keys() - gathered.keys():
            time.sleep(SETTLES_SECONDS)  # so that what was written last can be told from what is written next
        self.sight = _sight(self.environment, self.memory)
        before = self._noted()
        same = origin is not None and self.memory.origin == origin
        kept = {name: image for name, image in self.memory.images.items() if self._stays(image, same=same, options=options)}
        groups: dict[str, Watch] = {}
        for name, build in builds.items():
            kept.pop(name, None)
            found = gathered.get(name) or self.gather(build, notes[name], groups=groups, sight=self.sight)
            if found is not None:
                kept[name] = found.image
                groups |= found.groups
        self.memory.origin, self.memory.images = origin, kept
        self.memory.groups |= groups
        if self._noted() != before:
            self._save(renewed=builds.keys())

    def _noted(self) -> tuple[Origin | None, dict[str, SettledImage]]:
        return self.memory.origin, self.memory.images

    def _stays(self, image: SettledImage, *, same: bool, options: Mapping[str, str]) -> bool:
        known = options.get(image.name)
        return self._holding.get(image.name, True) and (known == image.options if known is not None else same)

    def _same_origin(self, origin: Origin) -> bool:
        return (
            origin.watch.holds()
            and all(_fits(folder, pattern) == noted for folder, pattern, noted in origin.globs)
            and self.variables(origin.variable_names) == origin.variables
        )

    def variables(self, names: Iterable[str]) -> str:
        """A keyed digest of environment variables, set or not."""
        return self.digest({name: self.environment.variables.get(name) for name in sorted(names)})

    def _save(self, renewed: Collection[str] = ()) -> None:
        """Write what is known, with the stat of the shared files under which all of it was found right.

        Of a renewed image what it says of them may be newer than what they were trusted with.
        """
        memory, at, sight = self.memory, time.time_ns(), _sight(self.environment, self.memory)
        stats = sight.shared(memory.images.values())
        memory.images = {
            name: image for name, image in memory.images.items() if sight.shared_holds(image, trust=name not in renewed)
        }
        used = {name for image in memory.images.values() for name in image.shared}
        memory.groups = {name: group for name, group in memory.groups.items() if name in used}
        memory.shared = {path: found for path, found in stats.items() if settled_before((path,), at)}
        save_memory(self.file, self.key, memory)


def recall(
    environment: Environment, *, place: Sequence[str], begun: int, root_key_file: Path | None = None
) -> Recollection | None:
    """Remember what is settled in a place; None where there is no root key yet, or none that may be used."""
    from sconify_tasks.keys import known_root_key

    try:
        root = known_root_key(environment.state, given=environment.root_key, file=root_key_file)
    except SconifyError:
        return None  # said by the run itself
    if root is None:
        return None
    key = settled_key(root)
    about = {each.name: str(getattr(environment, each.name)) for each in fields(environment) if each.name != "variables"}
    program = keyed(key, [program_signature(), about])
    file = memory_file(environment.cache, key, list(place))
    memory = load_memory(file, key, program) or Memory(program=program)
    return Recollection(
        environment=environment, begun=begun, file=file, key=key, memory=memory, sight=_sight(environment, memory)
    )


def glob_origin(folder: Path, pattern: str, found: Iterable[Path]) -> tuple[str, str, str]:
    """What an `include` pattern fitted."""
    names = "\0".join(map(str, found)).encode("utf-8", "surrogateescape")
    return str(folder), pattern, hashlib.blake2b(names, digest_size=32).hexdigest()


def _fits(folder: str, pattern: str) -> str:
    from sconify_tasks.includes import find

    try:
        return glob_origin(Path(folder), pattern, find(Path(folder), pattern))[2]
    except (SconifyError, ValueError):
        return ""


def _sight(environment: Environment, memory: Memory) -> Sight:
    def listing() -> Mapping[str, str] | None:
        from sconify_tasks.image.listing import list_images

        return list_images(environment.docker_host)

    return Sight(state=environment.state, listing=listing, memory=memory)
