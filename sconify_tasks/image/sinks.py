"""The sinks of a run: one per engine and layout, so that one look at the engine answers for all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from sconify_tasks.errors import UsageError
from sconify_tasks.image.references import find_client, parse_reference, split_archive, split_layout, split_transport
from sconify_tasks.image.sink import Sink

if TYPE_CHECKING:
    from docker import DockerClient

_HINT = "deliver to NAME, docker:NAME, oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:REF"


class Sinks:
    """Opens each sink once. Whether an engine answers is asked once, and then holds for the run."""

    def __init__(
        self,
        *,
        docker: Callable[[], DockerClient],
        default_oci_store: Path,
        listing: Callable[[], Mapping[str, str] | None] = lambda: None,
    ) -> None:
        self._docker, self._store, self._listing = docker, default_oci_store, listing
        self._lock = Lock()
        self._engine: Sink | None = None
        self._asked = False

    def open(self, ref: str) -> tuple[Sink, str]:
        """Return the sink that an image named `ref` goes to, and the name the image has there."""
        transport, rest = split_transport(ref)
        if transport == "dir" or ref == "scratch":
            msg = f"{ref} can't be written to"
            raise UsageError(msg, hint=_HINT)
        if transport == "oci":
            folder, tag = split_layout(rest)
            return _layout(folder), tag or "latest"
        if transport in {"oci-archive", "docker-archive"}:
            return _archive(transport, rest)
        reference = parse_reference(rest)
        if reference.digest is not None:
            msg = f"{ref}: an image that is made can't have its digest in its name"
            raise UsageError(msg, hint=_HINT)
        engine = self._engine_sink(required=transport == "docker")
        if engine is not None:
            return engine, reference.familiar
        return _layout(self._store / reference.file_name), reference.tag

    def holds(self, ref: str, identity: str) -> bool:
        """Whether what was delivered to `ref` with this identity is still there. One listing answers for all of an engine's."""
        transport, rest = split_transport(ref)
        listed = self._listing() if transport in ("", "docker") else None
        if listed is not None:
            return listed.get(parse_reference(rest).familiar) == identity
        sink, name = self.open(ref)
        return sink.present(name, identity)

    def _engine_sink(self, *, required: bool) -> Sink | None:
        from sconify_tasks.image.sink_docker import DockerSink

        with self._lock:
            if self._engine is None and (required or not self._asked):
                client = find_client(self._docker, required=required)
                self._asked = True
                self._engine = DockerSink(client) if client is not None else None
            return self._engine


def _layout(folder: Path) -> Sink:
    from sconify_tasks.image.sink_oci import OciSink

    return OciSink(folder)


def _archive(transport: str, rest: str) -> tuple[Sink, str]:
    from sconify_tasks.image.sink_archive import DockerArchiveSink, OciArchiveSink

    if transport == "oci-archive":
        file, tag = split_layout(rest, transport)
        return OciArchiveSink(file), tag or "latest"
    file, name = split_archive(rest)
    if "@" in name:
        msg = f"docker-archive:{rest}: an image that is made can't have its digest in its name"
        raise UsageError(msg, hint=_HINT)
    return DockerArchiveSink(file), name
