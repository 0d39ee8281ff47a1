"""Delivers into a Docker Engine: a docker-archive streamed to `docker load`, verified, and only then named.

Of a base that the engine has, the archive lists all layers and carries only the new ones ("thin"): engines skip layers
that they know. One that refuses, or makes something else of it, gets the full archive.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from sconify_tasks.errors import UnavailableError, VerificationError
from sconify_tasks.image.archive_write import archive_bytes, docker_parts
from sconify_tasks.image.config import config_of, identity_of, parse_config, parse_diff_ids
from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.engine import api_of, engine_errors
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.references import parse_reference
from sconify_tasks.image.sink import Delivered
from sconify_tasks.image.source import SourceImage

if TYPE_CHECKING:
    from docker import DockerClient

_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


class DockerSink:
    """One engine; names are what `docker run` takes."""

    def __init__(self, client: DockerClient) -> None:
        self._api = api_of(client)
        self._listed: dict[str, str] | None = None
        self._lock = Lock()

    def deliver(self, built: BuiltImage, base: SourceImage, name: str) -> Delivered:
        """Load, verify, tag. The image that had the name before keeps it until the new one is verified."""
        _check_files(built.layers)
        thin = isinstance(base, DockerSource) or not built.base_diff_ids
        with engine_errors(f"docker:{name}"):
            loaded = self._try_thin(built) if thin else None
            if loaded is None:
                with base.layer_files() as below:
                    if [layer.diff_id for layer in below] != list(built.base_diff_ids):
                        msg = f"{base.name} does not have the layers that the image was built on"
                        raise VerificationError(msg, hint="build again")
                    loaded = self._load(built, (*below, *built.layers))
                self._verify(built, loaded)
            reference = parse_reference(name)
            self._api.tag(loaded, reference.repository, reference.tag, force=True)
            identity = str(self._api.inspect_image(name)["Id"])
        with self._lock:
            if self._listed is not None:
                self._listed[reference.familiar] = identity
        return Delivered(identity=identity, config_digest=_digest(built.config), manifest_digest=None)

    def present(self, name: str, expected: str) -> bool:
        """Whether the engine still has it under that name: one listing answers for all names."""
        with self._lock:
            if self._listed is None:
                with engine_errors("listing the engine's images"):
                    images = self._api.images()
                self._listed = {tag: str(image["Id"]) for image in images for tag in image.get("RepoTags") or []}
            return self._listed.get(parse_reference(name).familiar) == expected

    def _try_thin(self, built: BuiltImage) -> str | None:
        from docker import errors

        try:
            loaded = self._load(built, built.layers)
            self._verify(built, loaded)
        except (errors.APIError, UnavailableError, VerificationError):
            return None
        return loaded

    def _load(self, built: BuiltImage, carried: Sequence[Layer]) -> str:
        """Load an archive without a name; return what the engine says it became, else the config's digest."""
        loaded = str(_digest(built.config))
        for event in _events(self._api.load_image(_archive(built, carried))):
            if "error" in event:
                msg = f"the engine refuses the image: {event['error']}"
                raise UnavailableError(msg, hint="see the engine's log, or use oci:DIR:TAG, which needs no engine")
            if match := _LOADED.search(str(event.get("stream", ""))):
                loaded = match[1]
        return loaded

    def _verify(self, built: BuiltImage, loaded: str) -> None:
        """Compare what the engine has with what was sent."""
        found: dict[str, Any] = self._api.inspect_image(loaded)
        config = config_of(found, found.get("Config") or {})
        diff_ids = parse_diff_ids((found.get("RootFS") or {}).get("Layers"))
        expected = (*built.base_diff_ids, *(layer.diff_id for layer in built.layers))
        if identity_of(config, diff_ids) != identity_of(parse_config(built.config), expected):
            msg = f"the engine made another image of it: {loaded}"
            raise VerificationError(msg, hint="use oci:DIR:TAG, and report this with the engine's version")


def _check_files(layers: Iterable[Layer]) -> None:
    for layer in layers:
        if not layer.path.is_file() or layer.path.stat().st_size != layer.size:
            msg = f"layer {layer.diff_id} is not the file it was"
            raise VerificationError(msg, hint="build again")


def _archive(built: BuiltImage, carried: Iterable[Layer]) -> Iterator[bytes]:
    """Without a tag: the image gets its name when it has been verified."""
    every = [*built.base_diff_ids, *(layer.diff_id for layer in built.layers)]
    return archive_bytes(docker_parts(built.config, every, carried, tag="", verify=False))


def _events(answer: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a load's progress stream."""
    for event in answer:
        if isinstance(event, dict):
            yield event


def _digest(config: bytes) -> Sha256:
    return Sha256("sha256:" + hashlib.sha256(config).hexdigest())
