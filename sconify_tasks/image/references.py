"""How images are named: `TRANSPORT:NAME`, and the grammar of references (distribution/reference), read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image.model import Sha256

if TYPE_CHECKING:
    from docker import DockerClient

    from sconify_tasks.image.learned import LayerMemory
    from sconify_tasks.image.rootfs import StatCache
    from sconify_tasks.image.source import ContentWatcher, SourceImage

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?\Z")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)
_LONGEST = 255
_HUB = "docker.io"
_PLATFORM = "linux/amd64"
_LATER = ("registry",)
_TRANSPORTS = ("docker", "oci", "oci-archive", "docker-archive", "dir")
_FORMS = "use docker:NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF] or dir:ROOTFS"


class Reference(Struct, frozen=True, kw_only=True):
    """`host:port/repository:tag@digest` with Docker's defaults filled in; no tag and no digest means `latest`."""

    domain: str
    path: str
    tag: str = ""
    digest: Sha256 | None = None

    @property
    def repository(self) -> str:
        """The normal form without tag: `docker.io/library/alpine`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people and engines write it: `alpine:3.10`."""
        path = self.path.removeprefix("library/") if self.domain == _HUB and self.path.count("/") == 1 else self.path
        name = path if self.domain == _HUB else f"{self.domain}/{path}"
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def file_name(self) -> str:
        """The repository as one file name; `+` and `=` are in no reference, so no two repositories share it."""
        return self.repository.replace("/", "+").replace(":", "=")

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Parse as the engines do. UsageError for what they would refuse."""
    name, at, digest_text = text.partition("@")
    name, tag = _split_tag(name)
    domain, _, path = name.partition("/")
    if not path or not ("." in domain or ":" in domain or domain == "localhost" or domain != domain.lower()):
        domain, path = _HUB, name
    if domain in ("index.docker.io", _HUB):
        domain, path = _HUB, path if "/" in path else f"library/{path}"
    try:
        digest = Sha256(digest_text) if at else None
    except ValueError as error:
        raise _bad(text, str(error)) from error
    if len(domain) + len(path) >= _LONGEST or not _DOMAIN.match(domain) or not _PATH.match(path):
        raise _bad(text, "names are lower case letters and digits, with . _ - between them")
    if tag is not None and not _TAG.match(tag):
        raise _bad(text, "a tag is letters, digits, . _ -, at most 128")
    return Reference(domain=domain, path=path, tag=tag or ("" if digest else "latest"), digest=digest)


def open_source(
    ref: str,
    *,
    docker: Callable[[], DockerClient],
    default_oci_store: Path,
    platform: str = _PLATFORM,
    stat_cache: StatCache | None = None,
    content_key: bytes = bytes(32),
    memory: LayerMemory | None = None,
    watcher: ContentWatcher | None = None,
    base: bool = False,
    engine_host: str | None = None,
) -> SourceImage:
    """Open an image by its name. A bare one is the engine's if an engine answers, else the local OCI store's.

    `engine_host` is DOCKER_HOST of the engine that `docker` gives the client of: with it a local one is spared the SDK.

    UnavailableError names what is missing; `.name` of the result says which one it is. `watcher` sees the files of a folder
    that are read for its identity. Only as a `base` a folder has a layer.
    """
    transport, rest = split_transport(ref)
    if transport == "dir" and base:
        from sconify_tasks.image.folder_base import FolderBase

        return FolderBase(Path(rest), stat_cache=stat_cache, content_key=content_key, platform=platform)
    if transport == "dir":
        from sconify_tasks.image.rootfs import RootfsSource

        return RootfsSource(
            Path(rest), stat_cache=stat_cache, content_key=content_key, platform=platform, watcher=watcher, by_content=False
        )
    if transport in {"oci", "oci-archive"}:
        from sconify_tasks.image.oci import OciSource

        place, tag = split_layout(rest, transport)
        return OciSource(place, tag, platform=platform, archive=transport == "oci-archive", memory=memory)
    if transport == "docker-archive":
        from sconify_tasks.image.docker_archive import DockerArchiveSource

        place, name = split_archive(rest)
        return DockerArchiveSource(place, name, platform=platform, memory=memory)
    if ref == "scratch":
        from sconify_tasks.image.scratch import ScratchSource

        return ScratchSource(platform=platform)
    reference, required = parse_reference(rest), transport == "docker"
    found = _from_engine(docker, reference, required=required, host=engine_host, platform=platform, memory=memory)
    return found or _from_store(ref, reference, store=default_oci_store, platform=platform, memory=memory)


def split_layout(text: str, transport: str = "oci") -> tuple[Path, str]:
    """`DIR[:TAG]` or `FILE[:TAG]`; the last colon counts, and a tag has no slash."""
    folder, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        folder, tag = text, ""
    if not folder or (folder != text and not _TAG.match(tag)):
        msg = f"{transport}:{text} is not {transport}:{'DIR' if transport == 'oci' else 'FILE'}[:TAG]"
        raise UsageError(msg, hint="a tag is letters, digits, . _ -, at most 128")
    return Path(folder), tag


def split_archive(text: str) -> tuple[Path, str]:
    """`FILE[:REF]` of a docker-archive, and REF in its familiar form or ""; the first colon counts, as for skopeo."""
    file, colon, name = text.partition(":")
    if not file or (colon and not name):
        msg = f"docker-archive:{text} is not docker-archive:FILE[:REF]"
        raise UsageError(msg, hint="REF is an image's name, as app:1; the file's name has no colon")
    return Path(file), parse_reference(name).familiar if name else ""


def repository_of(to: str) -> str:
    """A destination's name without transport, folder and tag; UsageError for what can't be written to."""
    transport, rest = split_transport(to)
    if transport == "dir" or to == "scratch":
        raise UsageError(f"--to={to} can't be written to", hint="deliver to NAME, docker:NAME or oci:DIR:TAG")
    if transport in {"oci", "oci-archive"}:
        return split_layout(rest, transport)[0].name
    if transport == "docker-archive":
        file, name = split_archive(rest)
        return parse_reference(name).repository if name else file.name
    return parse_reference(rest).repository


def archive_of(ref: str) -> Path | None:
    """The file of an `oci-archive:` or `docker-archive:`, resolved; None for other transports."""
    transport, rest = split_transport(ref)
    if transport == "oci-archive":
        return split_layout(rest, transport)[0].resolve()
    return split_archive(rest)[0].resolve() if transport == "docker-archive" else None


def _from_engine(
    docker: Callable[[], DockerClient],
    reference: Reference,
    *,
    required: bool,
    host: str | None,
    platform: str,
    memory: LayerMemory | None,
) -> SourceImage | None:
    """The engine's image; None where no engine answers and none is required."""
    from sconify_tasks.image.listing import inspect_image

    inspected = None if host is None else inspect_image(host, reference.familiar)
    if inspected is None and find_client(docker, required=required) is None:
        return None
    from sconify_tasks.image.docker import DockerSource

    return DockerSource(docker, reference.familiar, platform=platform, host=host, inspected=inspected, memory=memory)


def _from_store(ref: str, reference: Reference, *, store: Path, platform: str, memory: LayerMemory | None) -> SourceImage:
    from sconify_tasks.image.oci import OciSource

    folder = store / reference.file_name
    if not folder.is_dir():
        msg = f"{ref}: no Docker Engine answers, and the local store has no image of that name"
        raise UnavailableError(msg, hint=f"start the engine, name oci:DIR:TAG, or put a layout at {folder}")
    return OciSource(folder, str(reference.digest) if reference.digest else reference.tag, platform=platform, memory=memory)


def find_client(docker: Callable[[], DockerClient], *, required: bool) -> DockerClient | None:
    """Return the client of an engine that answers; where one is `required`, UnavailableError says why none does."""
    from sconify_tasks.image.engine import connect

    try:
        return connect(docker)
    except UnavailableError:
        if required:
            raise
        return None


def split_transport(ref: str) -> tuple[str, str]:
    """Split `TRANSPORT:REST`, of a transport that is built; a bare `app:1` has none, whatever stands before its colon."""
    head, colon, rest = ref.partition(":")
    if colon and head in _LATER:
        msg = f"{ref}: the transport {head}: is not built yet"
        raise UsageError(msg, hint=_FORMS)
    if colon and head in _TRANSPORTS:
        if not rest:
            msg = f"{ref} names nothing"
            raise UsageError(msg, hint=_FORMS)
        return head, rest
    return "", ref


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, None)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"not an image reference: {text[:200]!r}", hint=why)
