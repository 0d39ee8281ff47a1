"""Delivers into an OCI image layout folder (image-spec image-layout.md).

Blobs first, the index last, each by rename: at any moment the folder is a valid layout with the old or the new image.
A lock keeps two writers of this program apart; whatever lies half-written under the lock is a dead run's and is removed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from sconify_tasks.errors import SconifyError, VerificationError
from sconify_tasks.file_lock import locked
from sconify_tasks.image.config import json_object, parse_config
from sconify_tasks.image.extent import Extent, copy_bytes
from sconify_tasks.image.layout import OciLayout
from sconify_tasks.image.manifest import (
    CONFIG,
    INDEX,
    MANIFEST,
    REF_NAME,
    TAR,
    Blob,
    descriptor,
    encode,
    items,
    not_what_it_says,
    tag_of,
)
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.oci import OciSource, open_layout
from sconify_tasks.image.sink import Delivered
from sconify_tasks.image.source import SourceImage
from sconify_tasks.image.streams import CHUNK, Forward, drain

_TEMPORARY = ".sconify-"
_LOCK = ".sconify.lock"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
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
                manifest = encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
                entry = self._document(MANIFEST, manifest)
                self._tag(name, entry | {"platform": platform_of(built), "annotations": {REF_NAME: name}})
        except OSError as error:
            msg = f"oci:{self._folder}: {error.strerror or error}"
            raise SconifyError(msg, hint="make room or choose another folder") from error
        digest = Sha256(entry["digest"])
        return Delivered(identity=str(digest), config_digest=config_digest, manifest_digest=digest)

    def present(self, name: str, expected: str) -> bool:
        """Whether the tag names the manifest, and all blobs that it names are there in their length."""
        try:
            return layout_holds(open_layout(self._folder), name, expected)
        except SconifyError:
            return False

    def remove(self, name: str) -> None:
        """Take a tag out of the index, and what only it names out of the blobs; the folder goes with its last image."""
        with self._locked():
            layout = open_layout(self._folder)
            index = layout.index()
            entries = items(index.get("manifests"))
            rest = [entry for entry in entries if tag_of(entry) != name]
            gone = _named(layout, entries) - _named(layout, rest)
            self._write(self._folder / "index.json", encode(index | {"manifests": rest}))
            for digest in gone:
                self._path(digest).unlink(missing_ok=True)
            if rest:
                return
            for leftover in ("index.json", "oci-layout"):
                (self._folder / leftover).unlink(missing_ok=True)
            with suppress(OSError):  # something else lies there
                self._blobs.rmdir()
                self._blobs.parent.rmdir()
            (self._folder / _LOCK).unlink()  # the last of what the lock is for: who waits for it takes a new one
        with suppress(OSError):
            self._folder.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self._folder / _LOCK):
            self._blobs.mkdir(parents=True, exist_ok=True)
            for folder in (self._folder, self._blobs):
                for left in folder.glob(_TEMPORARY + "*"):
                    left.unlink()
            marker = self._folder / "oci-layout"
            if not marker.exists():
                self._write(marker, LAYOUT)
            yield

    def _base_layers(self, built: BuiltImage, base: SourceImage) -> list[Descriptor]:
        """Take an OCI base's blobs as they are; else plain tars, exported only if one of them is not here already."""
        if base.diff_ids[: len(built.base_diff_ids)] != built.base_diff_ids:
            msg = f"{base.name} does not have the layers that the image was built on"
            raise VerificationError(msg, hint="build again")
        if isinstance(base, OciSource):
            blobs = base.layers[: len(built.base_diff_ids)]
            for blob in blobs:
                with closing(base.blob(blob)) as extent:
                    self._copy(extent, blob)
            return [{"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size} for blob in blobs]
        paths = [self._path(digest) for digest in built.base_diff_ids]
        if all(path.exists() for path in paths):
            return [_descriptor(digest, path.stat().st_size) for digest, path in zip(built.base_diff_ids, paths, strict=True)]
        with base.layer_files() as files:
            return [self._layer(layer, verify=True) for layer in files[: len(paths)]]

    def _layer(self, layer: Layer, *, verify: bool = False) -> Descriptor:
        found = layer_descriptor(layer)
        target = self._path(layer.diff_id)
        if verify:
            with closing(_whole(layer.path)) as extent:
                self._copy(extent, Blob(media_type=TAR, digest=layer.diff_id, size=layer.size, document={}))
            return found
        if layer.path.stat().st_size != layer.size:
            msg = f"layer {layer.diff_id} is not the file it was"
            raise VerificationError(msg, hint="build again")
        temporary = self._temporary(target)
        try:
            # Also where a blob of that name and length is there: a link costs nothing, and what is there may be damaged.
            os.link(layer.path.resolve(), temporary)  # link(2) would link a symlink itself
        except OSError:  # another file system, or one without hard links
            if _is(target, layer):
                return found
            with closing(_whole(layer.path)) as extent, temporary.open("wb") as out:
                copy_bytes(extent, cast("BinaryIO", out))
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # rename(2) leaves both names where they are one file already
        return found

    def _copy(self, extent: Extent, blob: Blob) -> None:
        """Copy a foreign blob and verify it on the way. One that is there in its length was verified when it came."""
        target = self._path(blob.digest)
        if _has(target, blob.size):
            return
        incoming, temporary = Forward(extent.open(), limit=extent.size), self._temporary(target)
        with temporary.open("wb") as out:
            while data := incoming.read(CHUNK):
                out.write(data)
        if incoming.digest() != blob.digest or incoming.tell() != blob.size:
            temporary.unlink()
            raise not_what_it_says(blob)
        temporary.replace(target)

    def _document(self, media_type: str, data: bytes) -> Descriptor:
        found = described(media_type, data)
        path = self._path(Sha256(found["digest"]))
        if not _has(path, len(data)) or path.read_bytes() != data:
            self._write(path, data)
        return found

    def _tag(self, name: str, entry: Descriptor) -> None:
        path = self._folder / "index.json"
        index: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if path.exists():
            index = open_layout(self._folder).index()
        entries = items(index.get("manifests"))
        places = [place for place, item in enumerate(entries) if tag_of(item) == name]
        if places:
            entries = [entry if place == places[0] else item for place, item in enumerate(entries) if place not in places[1:]]
        else:
            entries = [*entries, entry]
        if index.get("manifests") != entries:
            self._write(path, encode(index | {"manifests": entries}))

    def _write(self, path: Path, data: bytes) -> None:
        temporary = self._temporary(path)
        temporary.write_bytes(data)
        temporary.replace(path)

    def _path(self, digest: Sha256) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _temporary(self, path: Path) -> Path:
        return path.with_name(_TEMPORARY + path.name)


def _named(layout: OciLayout, entries: list[object]) -> set[Sha256]:
    """Digests of everything that entries of an index name, through nested indexes; what can't be read names nothing."""
    found: set[Sha256] = set()
    pending = list(entries)
    while pending:
        with suppress(SconifyError):
            blob = descriptor(pending.pop())
            if blob.digest in found:
                continue
            found.add(blob.digest)
            if "manifest" in blob.media_type or "index" in blob.media_type:
                document = layout.document(blob)
                pending += [*items(document.get("manifests")), *items(document.get("layers"))]
                pending += [document["config"]] if "config" in document else []
    return found


def described(media_type: str, data: bytes) -> Descriptor:
    """Describe a document that is made."""
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def layer_descriptor(layer: Layer) -> Descriptor:
    """Describe a plain layer tar."""
    return _descriptor(layer.diff_id, layer.size)


def platform_of(built: BuiltImage) -> dict[str, str]:
    """What an index says the image is for."""
    config = parse_config(built.config)
    return {"architecture": config.architecture, "os": config.os}


def layout_holds(layout: OciLayout, name: str, expected: str) -> bool:
    """Whether the tag names the manifest `expected`, and every blob below it is there in its length.

    Raises SconifyError for a layout that is damaged, which it then does not hold.
    """
    entries = [item for item in items(layout.index().get("manifests")) if tag_of(item) == name]
    if len(entries) != 1:
        return False
    found = descriptor(entries[0])
    if found.digest != expected:
        return False
    manifest = json_object(layout.bytes(found), what="manifest")
    return all(layout.holds(descriptor(item)) for item in (manifest.get("config"), *items(manifest.get("layers"))))


def _descriptor(digest: Sha256, size: int) -> Descriptor:
    return {"mediaType": TAR, "digest": str(digest), "size": size}


def _whole(path: Path) -> Extent:
    return Extent.whole(cast("BinaryIO", path.open("rb")))


def _is(path: Path, layer: Layer) -> bool:
    """Whether a blob that is there has the layer's bytes."""
    if not _has(path, layer.size):
        return False
    with path.open("rb") as file:
        found = Forward(cast("BinaryIO", file))
        drain(found)
    return found.digest() == layer.diff_id


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
