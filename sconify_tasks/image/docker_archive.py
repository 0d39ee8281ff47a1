"""`docker-archive:FILE[:REF]`: an image in what `docker save` writes, of every engine since 1.10.

All their layouts have a manifest.json that names config and layers: the old one has `HEX.json` and `ID/layer.tar` (some of
them symlinks to another), skopeo's `HEX.tar`, that of Engine 25 and newer is an OCI layout with `blobs/sha256/HEX`.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from msgspec import Struct

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError, VerificationError
from sconify_tasks.image.archive import ArchiveFiles
from sconify_tasks.image.config import parse_config
from sconify_tasks.image.extent import Extent, unpack
from sconify_tasks.image.files import read_small
from sconify_tasks.image.layered import LayeredSource
from sconify_tasks.image.learned import LayerMemory
from sconify_tasks.image.manifest import DOCUMENT, items, mapping
from sconify_tasks.image.model import ImageConfig
from sconify_tasks.image.references import parse_reference

MANIFEST_JSON = "manifest.json"
_IMAGES = 10_000
_CONFIGS = 64 << 20  # bytes of all configs that one choice reads
_DIGEST = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?\Z")
_HINT = "save the image again"


class Saved(Struct, frozen=True, kw_only=True):
    """One entry of manifest.json."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchiveSource(LayeredSource):
    """One image of an archive."""

    def __init__(
        self, file: Path, reference: str = "", *, platform: str = "linux/amd64", memory: LayerMemory | None = None
    ) -> None:
        self._files = ArchiveFiles(file, label=f"docker-archive:{file}")
        name = self._files.label + (f":{reference}" if reference else "")
        try:
            saved, config = _choose(self._files, reference, platform, name)
            super().__init__(name=name, config=config, platform=platform, memory=memory)
        except BaseException:
            self._files.close()
            raise
        self._saved = saved.layers
        if len(self._saved) != len(self.diff_ids):
            self._files.close()
            msg = f"{name}: {len(self._saved)} layers in {MANIFEST_JSON}, {len(self.diff_ids)} in the config"
            raise VerificationError(msg, hint=_HINT)

    def open_layer(self, number: int) -> Extent:
        """Open one layer, verified by its diff id and uncompressed."""
        name = self._saved[number]
        return unpack(self._files.extent(name), blob=None, diff_id=self.diff_ids[number], what=f"layer {name[:100]}")

    def close(self) -> None:
        """Forget the unpacked layers, and the archive."""
        super().close()
        self._files.close()


def saved_images(files: ArchiveFiles) -> list[Saved]:
    """Parse manifest.json. UsageError says what else the archive is."""
    if files.size(MANIFEST_JSON) is None:
        raise _no_archive(files)
    try:
        document = json.loads(read_small(files, MANIFEST_JSON, DOCUMENT))
    except (ValueError, RecursionError) as error:
        msg = f"{files.label}: damaged {MANIFEST_JSON}: {error}"
        raise UsageError(msg, hint=_HINT) from error
    if len(items(document)) > _IMAGES:
        msg = f"{files.label}: more than {_IMAGES} images in {MANIFEST_JSON}"
        raise UsageError(msg, hint=_HINT)
    found = [_saved(item) for item in items(document)]
    if not found or None in found:
        msg = f"{files.label}: damaged {MANIFEST_JSON}: not a list of images"
        raise UsageError(msg, hint=_HINT)
    return [item for item in found if item is not None]


def read_config(files: ArchiveFiles, name: str) -> bytes:
    """Read a config; VerificationError where its name is a digest and not that of its bytes."""
    data = read_small(files, name, DOCUMENT)
    match = _DIGEST.match(name)
    if match and hashlib.sha256(data).hexdigest() != match[1]:
        msg = f"{files.label}: {name} does not have the bytes that its name promises"
        raise VerificationError(msg, hint=_HINT)
    return data


def _choose(files: ArchiveFiles, reference: str, platform: str, name: str) -> tuple[Saved, ImageConfig]:
    every = saved_images(files)
    tags = sorted({tag for item in every for tag in item.tags})
    held = f"it holds: {', '.join(tags)[:200] or 'no image with a name'}"
    wanted = [item for item in every if not reference or reference in {familiar(tag) for tag in item.tags}]
    if not wanted:
        msg = f"{name}: no image of that name"
        raise UnavailableError(msg, hint=held)
    names = sorted({item.config for item in wanted})
    if sum(files.size(config) or 0 for config in names) > _CONFIGS:
        msg = f"{name}: {len(names)} images with large configs"
        raise UsageError(msg, hint=f"name one: docker-archive:FILE:REF; {held}")
    parsed = {config: parse_config(read_config(files, config)) for config in names}
    configs = [(item, parsed[item.config]) for item in wanted]
    fitting = [(item, config) for item, config in configs if f"{platform}/".startswith(f"{config.os}/{config.architecture}/")]
    if not fitting:
        platforms = ", ".join(sorted({f"{config.os}/{config.architecture}" for _, config in configs}))
        msg = f"{name}: nothing for {platform}"
        raise UnavailableError(msg, hint=f"it holds {platforms[:200]}")
    if len({item.config for item, _ in fitting}) > 1:
        msg = f"{name} holds {len(fitting)} images"
        raise UsageError(msg, hint=f"name one: docker-archive:FILE:REF; {held}")
    return fitting[0]


def _saved(item: object) -> Saved | None:
    document = mapping(item)
    config, tags, layers = document.get("Config"), items(document.get("RepoTags")), items(document.get("Layers"))
    if not isinstance(config, str) or not all(isinstance(value, str) for value in (*tags, *layers)):
        return None
    return Saved(config=config, tags=tuple(map(str, tags)), layers=tuple(map(str, layers)))


def familiar(tag: str) -> str:
    """Write a tag as the user's reference is written; a name that no engine would take is nobody's."""
    try:
        return parse_reference(tag).familiar
    except SconifyError:
        return ""


def _no_archive(files: ArchiveFiles) -> UsageError:
    if files.size("oci-layout") is not None:
        hint = "it is an OCI layout: name it oci-archive:FILE[:TAG]"
    elif files.size("repositories") is not None:
        hint = "a Docker older than 1.10 saved it: load it and save it again"
    else:
        hint = "name what `docker save` wrote; the tar of a file system is a folder's: unpack it and name dir:FOLDER"
    return UsageError(f"{files.label} has no {MANIFEST_JSON}", hint=hint)
