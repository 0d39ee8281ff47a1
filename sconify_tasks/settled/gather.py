"""From a build that is done to what is noted of it: every file that its plan read, and everything that it delivered.

Fails closed: what this does not know how to watch, a kind of source or an input from outside, leaves the image unsettled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from sconify_tasks.build import Build
from sconify_tasks.cas import cas_key
from sconify_tasks.errors import SconifyError
from sconify_tasks.image.opened import OpenedSource
from sconify_tasks.image.references import parse_reference, split_archive, split_layout, split_transport
from sconify_tasks.image.source import SeenSource, SourceImage
from sconify_tasks.options import session_file
from sconify_tasks.settled.record import SettledImage
from sconify_tasks.settled.sight import Sight
from sconify_tasks.settled.signature import settled_before
from sconify_tasks.settled.watch import TooNewError, Watch, Watching


class _Unknown(Exception):  # noqa: N818 - no error: the image is looked at again by the next run
    """Something that can't be watched."""


# Others may write there too.
_CANT_TELL = (_Unknown, TooNewError, SconifyError, OSError, LookupError, ValueError, TypeError, RecursionError)


class Note(Struct, frozen=True, kw_only=True):
    """What a door knows of an image beside its build."""

    options: str
    warnings: tuple[str, ...]
    demands_production: bool
    resources: Path


class Gathered(Struct, frozen=True, kw_only=True):
    """What is to be noted of an image, and the groups of files that it was the first to look at, by name."""

    image: SettledImage
    groups: Mapping[str, Watch]


@dataclass(slots=True, kw_only=True)
class _Watched:
    """What was found so far. `begun` is when the run began (ns): what was read must be older."""

    sight: Sight
    build: Build
    begun: int
    groups: Mapping[str, Watch]
    own: Watching = field(default_factory=Watching)
    fresh: dict[str, Watch] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    tags: list[tuple[str, str, str]] = field(default_factory=list)
    into_engine: bool = False
    cas: str = ""

    def read(self, path: Path | str) -> None:
        """A file that the plan read."""
        self.own.file(path, before=self.begun)

    def made(self, path: Path | str) -> None:
        """A file that the build wrote."""
        self.own.file(path, before=time.time_ns())

    def length(self, path: Path) -> None:
        """A file of which only the length counts."""
        self.own.length(path)

    def group(self, name: str, fill: Callable[[Watching], None]) -> None:
        """Files that other images watch too: the first one looks at them, for this run."""
        found = self.groups.get(name) or self.fresh.get(name)
        if found is None:
            group = Watching()
            fill(group)
            found = self.fresh[name] = group.done()
        self.shared[name] = found.digest


def gather(build: Build, note: Note, *, sight: Sight, begun: int, groups: Mapping[str, Watch]) -> Gathered | None:
    """Note a build that has nothing left to do; None where that can't be told, or not yet.

    `groups` are those that other images looked at in this run, by name.
    """
    watched = _Watched(sight=sight, build=build, begun=begun, groups=groups)
    try:
        for name in build.externals:
            _EXTERNALS[name](watched)
        _files("identity")(watched)
        effects = [step for step in build.steps if step.effect]
        for step in effects:
            _EFFECTS[step.name](watched, note)
        # Asked after every stat was taken: what changes from here on is found by its stat. An engine's Ids are looked up by
        # every run, so what this one delivered needs no second listing.
        if not all(build.holds(step) for step in effects if step.name != "deliver" or not watched.into_engine):
            return None
    except _CANT_TELL:
        return None
    image = SettledImage(
        name=build.name,
        options=note.options,
        session=str(build.external("session")),
        to=build.options.text("to"),
        warnings=note.warnings,
        demands_production=note.demands_production,
        noted=time.time_ns(),
        watch=watched.own.done(),
        shared=watched.shared,
        engine=watched.engine,
        tags=tuple(watched.tags),
        cas=watched.cas,
    )
    return Gathered(image=image, groups=watched.fresh)


def _source(watched: _Watched, option: str, opened: OpenedSource) -> None:
    reference = watched.build.options.text(option)
    if reference == "scratch":
        return
    transport, rest = split_transport(reference)
    if transport in {"", "docker"}:
        # What the run saw when it began: a name that moved since is another image by the next run.
        _engine(watched, parse_reference(rest).familiar, watched.build.world.engine_images)
        return
    if transport == "oci-archive":
        watched.read(split_layout(rest, transport)[0].absolute())
        return
    if transport == "docker-archive":
        watched.read(split_archive(rest)[0].absolute())
        return
    if transport == "dir":
        _tree(watched, Path(rest).absolute(), opened())
        return
    documents = getattr(opened(), "documents", None)
    if transport != "oci" or documents is None:
        raise _Unknown
    folder, tag = split_layout(rest)
    index = str(folder.absolute() / "index.json")
    if not settled_before((index,), watched.begun):
        raise _Unknown
    shown = "" if ":" in tag else tag
    watched.tags.append((index, shown, watched.sight.tag(index, shown)))
    for name in documents:
        watched.read(folder.absolute() / name)


def _tree(watched: _Watched, folder: Path, source: SourceImage) -> None:
    config = Path(f"{folder}.json")
    if not isinstance(source, SeenSource) or source.has_config != config.exists():
        raise _Unknown
    seen, has_config = source.seen, source.has_config
    if seen is None:
        raise _Unknown

    def fill(group: Watching) -> None:
        group.tree(str(folder), seen, before=watched.begun)
        if has_config:
            group.file(config, before=watched.begun)
        else:
            group.missing(config)

    watched.group(str(folder), fill)


def _engine(watched: _Watched, name: str, listing: object) -> None:
    if not isinstance(listing, dict) or name not in listing:
        raise _Unknown
    watched.engine[name] = listing[name]


def _pin(watched: _Watched) -> None:
    """The embedded CAS's key: perhaps made by this very run, so it is compared with the one that the plan took."""
    if watched.build.options["cas"] is None:
        folder = watched.build.world.state / "cas"
        watched.group("identity", lambda group: group.file(folder / "identity.pem", before=time.time_ns()))
        if cas_key.pin(folder) != watched.build.external("embedded_pin"):
            raise _Unknown


def _signer(watched: _Watched) -> None:
    """A key file by its stat; a token's key is known by its URI, which the options and the environment hold."""
    from sconify_tasks.signing.location import PemFile, parse_location

    text = watched.build.options.text("scone-signer") or watched.build.world.environment.signer
    location = parse_location(text) if text else None
    if isinstance(location, PemFile):
        watched.read(location.path.absolute())
    _files("scone-signer-public-key")(watched)


def _files(option: str) -> Callable[[_Watched], None]:
    def watch(watched: _Watched) -> None:
        given = watched.build.options[option]
        for path in given if isinstance(given, tuple) else (given,):
            if path is not None:
                watched.read(Path(str(path)).absolute())

    return watch


def _nothing(_watched: _Watched) -> None:
    """It follows from the options, the root key, the program or its surroundings, which are looked at for all images."""


# One for each input from outside (`make_build`).
_EXTERNALS: dict[str, Callable[[_Watched], None]] = {
    "native": lambda watched: _source(watched, "from", watched.build.native),
    "base": lambda watched: _source(watched, "base", watched.build.base),
    "embedded_pin": _pin,
    "cas_roots": _files("cas-root"),
    "template": _files("template"),
    "signer": _signer,
    "runtime": _nothing,
    "fspf_key_id": _nothing,
    "epoch": _nothing,
    "session": _nothing,
    "resources": _nothing,
}


def _deliver(watched: _Watched, _note: Note) -> None:
    to, identity = watched.build.options.text("to"), str(watched.build.settled["deliver"].facts["identity"])
    transport, rest = split_transport(to)
    if transport == "oci-archive":
        watched.made(split_layout(rest, transport)[0].absolute())
        return
    if transport == "docker-archive":
        watched.made(split_archive(rest)[0].absolute())
        return
    if transport != "oci":
        if watched.build.world.engine_images is None:
            raise _Unknown
        watched.into_engine = True
        _engine(watched, parse_reference(rest).familiar, {parse_reference(rest).familiar: identity})
        return
    folder, tag = split_layout(rest)
    folder = folder.absolute()
    blobs, index = folder / "blobs" / "sha256", str(folder / "index.json")
    watched.tags.append((index, tag or "latest", watched.sight.tag(index, tag or "latest")))
    watched.length(folder / "oci-layout")
    watched.length(blobs / identity.removeprefix("sha256:"))
    manifest = json.loads((blobs / identity.removeprefix("sha256:")).read_bytes())
    for item in (manifest["config"], *manifest["layers"]):
        watched.length(blobs / item["digest"].removeprefix("sha256:"))


def _resources(watched: _Watched, note: Note) -> None:
    watched.made(session_file(watched.build.options, note.resources).absolute())
    watched.made(note.resources / "Dockerfile")
    layers = watched.build.settled["resources"].facts["layers"]
    assert isinstance(layers, (list, tuple))
    for name, _size in layers:  # type: ignore[misc, str-unpack]
        watched.length(note.resources / str(name))


def _upload(watched: _Watched, _note: Note) -> None:
    if watched.build.options["cas"] is None:
        watched.cas = str(watched.build.settled["upload"].facts["hash"])


# One for each step with an effect (`sconify_tasks.effects`).
_EFFECTS: dict[str, Callable[[_Watched, Note], None]] = {"deliver": _deliver, "resources": _resources, "upload": _upload}
