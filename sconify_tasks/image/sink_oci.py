"""Delivers into an OCI image layout folder (image-spec image-layout.md).

Blobs first, the index last, each by rename: at any moment the folder is a valid layout with the old or the new image.
A lock keeps two writers of this program apart; whatever lies half-written under the lock is a dead run's and is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sconify_tasks.errors import SconifyError, VerificationError
from sconify_tasks.image.config import json_object, parse_config
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.oci import CONFIG, INDEX, MANIFEST, REF_NAME, TAR, Blob, OciLayout, OciSource, not_what_it_says
from sconify_tasks.image.sink import Delivered
from sconify_tasks.image.source import SourceImage
from sconify_tasks.image.streams import CHUNK

_TEMPORARY = ".sconify-"
_LOCK = ".sconify.lock"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
Descriptor = dict[str, Any]


class OciSink:
    """One layout folder; names are tags. `folder` is made when the first image comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"

    def deliver(self, built: BuiltImage, base: SourceImage, name: str) -> Delivered:
        """Write blobs, manifest and index entry; other tags stay as they are."""
        config_digest = Sha256("sha256:" + hashlib.sha256(built.config).hexdigest())
        try:
            with self._locked():
                layers = [*self._base_layers(built, base), *(self._layer(layer) for layer in built.layers)]
                config = self._document(CONFIG, built.config)
                manifest = _encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
                described = self._document(MANIFEST, manifest)
                self._tag(name, described | {"platform": _platform(built), "annotations": {REF_NAME: name}})
        except OSError as error:
            msg = f"oci:{self._folder}: {error.strerror or error}"
            raise SconifyError(msg, hint="make room or choose another folder") from error
        digest = Sha256(described["digest"])
        return Delivered(identity=str(digest), config_digest=config_digest, manifest_digest=digest)

    def present(self, name: str, expected: str) -> bool:
        """Whether the tag names the manifest, and all blobs that it names are there in their length."""
        try:
            layout = OciLayout(self._folder)
            entries = [item for item in _manifests(layout.index()) if _tag_of(item) == name]
            if [item.get("digest") for item in entries] != [expected]:
                return False
            manifest = json_object(layout.path(Sha256(expected)).read_bytes(), what="manifest")
            return all(
                layout.path(Sha256(item["digest"])).stat().st_size == item["size"]
                for item in (entries[0], manifest["config"], *manifest["layers"])
            )
        except (SconifyError, OSError, KeyError, TypeError, ValueError):
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._blobs.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for folder in (self._folder, self._blobs):
                for left in folder.glob(_TEMPORARY + "*"):
                    left.unlink()
            marker = self._folder / "oci-layout"
            if not marker.exists():
                self._write(marker, _LAYOUT)
            yield

    def _base_layers(self, built: BuiltImage, base: SourceImage) -> list[Descriptor]:
        """Take an OCI base's blobs as they are; else plain tars, exported only if one of them is not here already."""
        if base.diff_ids[: len(built.base_diff_ids)] != built.base_diff_ids:
            msg = f"{base.name} does not have the layers that the image was built on"
            raise VerificationError(msg, hint="build again")
        if isinstance(base, OciSource):
            blobs = base.layers[: len(built.base_diff_ids)]
            for blob in blobs:
                self._copy(base.blob_path(blob), blob)
            return [{"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size} for blob in blobs]
        paths = [self._path(digest) for digest in built.base_diff_ids]
        if all(path.exists() for path in paths):
            return [
                _layer_descriptor(digest, path.stat().st_size) for digest, path in zip(built.base_diff_ids, paths, strict=True)
            ]
        with base.layer_files() as files:
            return [self._layer(layer, verify=True) for layer in files[: len(paths)]]

    def _layer(self, layer: Layer, *, verify: bool = False) -> Descriptor:
        described = _layer_descriptor(layer.diff_id, layer.size)
        target = self._path(layer.diff_id)
        if verify:
            self._copy(layer.path, Blob(media_type=TAR, digest=layer.diff_id, size=layer.size, document={}))
            return described
        if layer.path.stat().st_size != layer.size:
            msg = f"layer {layer.diff_id} is not the file it was"
            raise VerificationError(msg, hint="build again")
        temporary = self._temporary(target)
        try:
            # Also where a blob of that name and length is there: a link costs nothing, and what is there may be damaged.
            os.link(layer.path.resolve(), temporary)  # link(2) would link a symlink itself
        except OSError:  # another file system, or one without hard links
            if _has(target, layer.size):
                return described
            _clone(layer.path, temporary)
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # rename(2) leaves both names where they are one file already
        return described

    def _copy(self, source: Path, blob: Blob) -> None:
        """Copy a foreign blob and verify it on the way."""
        target = self._path(blob.digest)
        if _has(target, blob.size):
            return
        hasher, temporary = hashlib.sha256(), self._temporary(target)
        with source.open("rb") as incoming, temporary.open("wb") as out:
            while data := incoming.read(CHUNK):
                hasher.update(data)
                out.write(data)
        if hasher.hexdigest() != target.name or temporary.stat().st_size != blob.size:
            temporary.unlink()
            raise not_what_it_says(blob)
        temporary.replace(target)

    def _document(self, media_type: str, data: bytes) -> Descriptor:
        digest = hashlib.sha256(data).hexdigest()
        if not _has(self._blobs / digest, len(data)):
            self._write(self._blobs / digest, data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def _tag(self, name: str, described: Descriptor) -> None:
        path = self._folder / "index.json"
        index: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if path.exists():
            index = OciLayout(self._folder).index()
        entries = _manifests(index)
        places = [place for place, item in enumerate(entries) if _tag_of(item) == name]
        if places:
            entries[places[0]] = described
            entries = [item for place, item in enumerate(entries) if place not in places[1:]]
        else:
            entries.append(described)
        if index.get("manifests") != entries:
            self._write(path, _encode(index | {"manifests": entries}))

    def _write(self, path: Path, data: bytes) -> None:
        temporary = self._temporary(path)
        temporary.write_bytes(data)
        temporary.replace(path)

    def _path(self, digest: Sha256) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _temporary(self, path: Path) -> Path:
        return path.with_name(_TEMPORARY + path.name)


def _clone(source: Path, target: Path) -> None:
    """Copy by reflink where the file system can, else inside the kernel."""
    with source.open("rb") as incoming, target.open("wb") as out:
        with suppress(OSError):
            while os.copy_file_range(incoming.fileno(), out.fileno(), 1 << 30):
                pass
            return
        incoming.seek(0)
        out.seek(0)
        while data := incoming.read(CHUNK):
            out.write(data)


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _layer_descriptor(digest: Sha256, size: int) -> Descriptor:
    return {"mediaType": TAR, "digest": str(digest), "size": size}


def _platform(built: BuiltImage) -> dict[str, str]:
    config = parse_config(built.config)
    return {"architecture": config.architecture, "os": config.os}


def _manifests(index: Mapping[str, Any]) -> list[Any]:
    value = index.get("manifests")
    return list(value) if isinstance(value, list) else []


def _tag_of(item: Any) -> str:
    annotations = item.get("annotations") if isinstance(item, dict) else None
    return str(annotations.get(REF_NAME, "")) if isinstance(annotations, dict) else ""


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
