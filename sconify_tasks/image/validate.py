"""Re-derives everything an image in files claims: digests, sizes, diff ids, media types, the config, the layers' archives.

A library call for whoever makes or takes over images: `validate("oci-archive:app.tar:1")` raises, `violations(...)` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from sconify_tasks.errors import SconifyError, UsageError, VerificationError
from sconify_tasks.image.archive import ArchiveFiles
from sconify_tasks.image.choose import tagged
from sconify_tasks.image.config import json_object, parse_config, parse_diff_ids
from sconify_tasks.image.docker_archive import Saved, familiar, read_config, saved_images
from sconify_tasks.image.extent import Extent, unpack
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.layout import OciLayout
from sconify_tasks.image.manifest import (
    CONFIGS,
    INDEXES,
    LAYER_TYPES,
    MANIFEST,
    MANIFESTS,
    Blob,
    check_layer_type,
    descriptor,
    items,
)
from sconify_tasks.image.model import Sha256
from sconify_tasks.image.oci import open_layout
from sconify_tasks.image.references import split_archive, split_layout, split_transport
from sconify_tasks.image.streams import CHUNK, Forward, compression, drain

_DEPTH = 4
Result = TypeVar("Result")


def validate(image: str | Path, tag: str = "") -> None:
    """Check every layer of every platform of an image. VerificationError lists all violations, one a line.

    `image` is `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:REF]`; or the folder of a layout, and a
    tag. UsageError for any other transport: an engine's image is validated in what `docker save` makes of it.
    """
    found = violations(image, tag)
    if found:
        name = image if isinstance(image, str) else f"oci:{image}" + (f":{tag}" if tag else "")
        msg = f"{name} is not valid:\n" + "\n".join(found)
        raise VerificationError(msg, hint="build it again")


def violations(image: str | Path, tag: str = "") -> list[str]:
    """Return all that is wrong with an image, and nothing for a valid one. Memory does not grow with its size."""
    found: list[str] = []
    transport, rest = ("oci", "") if isinstance(image, Path) else split_transport(image)
    if transport not in {"oci", "oci-archive", "docker-archive"}:
        msg = f"{image} is not in files: it can't be validated"
        raise UsageError(msg, hint="name oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REF]")
    if transport == "docker-archive":
        _docker_archive(found, *split_archive(rest))
        return found
    place, tag = (image, tag) if isinstance(image, Path) else split_layout(rest, transport)
    layout = _checked(found, lambda: open_layout(place, archive=transport == "oci-archive"))
    if layout is not None:
        with closing(layout.files):
            entries = _checked(found, lambda: tagged(layout, tag, layout.files.label + (f":{tag}" if tag else "")))
            if tag and entries is not None and len(entries) != 1:
                found.append(f"index.json has {len(entries)} images tagged {tag}")
            _entries(found, layout, entries or ())
    return found


def _entries(found: list[str], layout: OciLayout, blobs: Iterable[Blob], depth: int = 0) -> None:
    for blob in blobs:
        if blob.media_type in MANIFESTS:
            _manifest(found, layout, blob)
        elif blob.media_type not in INDEXES or depth > _DEPTH:
            found.append(f"{blob.digest} is neither a manifest nor an index: {blob.media_type[:100]}")
        elif document := _checked(found, partial(layout.document, blob)):
            nested = (_checked(found, partial(descriptor, item)) for item in items(document.get("manifests")))
            _entries(found, layout, [item for item in nested if item], depth + 1)


def _manifest(found: list[str], layout: OciLayout, blob: Blob) -> None:
    document = _checked(found, lambda: layout.document(blob))
    if document is None:
        return
    if document.get("schemaVersion") != 2 or document.get("mediaType", MANIFEST) != blob.media_type:  # noqa: PLR2004
        found.append(f"manifest {blob.digest}: schema version or media type differ from its descriptor's")
    config = _checked(found, lambda: descriptor(document.get("config")))
    described = (_checked(found, partial(descriptor, item)) for item in items(document.get("layers")))
    layers = [one for one in described if one is not None]
    if config is None:
        return
    if config.media_type not in CONFIGS or _is_attestation(layers):
        for part in (config, *layers):
            _checked(found, partial(_bytes, layout, part))
        return
    diff_ids = _checked(found, lambda: _diff_ids(layout.bytes(config)))
    if diff_ids is None:
        return
    if len(layers) != len(diff_ids):
        found.append(f"{len(layers)} layers in the manifest, {len(diff_ids)} diff ids in the config")
        return
    for number, (one, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
        _checked(found, partial(check_layer_type, one))
        extent = _checked(found, partial(layout.extent, one))
        if extent is not None:
            _compression(found, extent, one)
            _layer(found, number, partial(unpack, extent, blob=one, diff_id=diff_id, what=f"layer {one.digest}"))


def _docker_archive(found: list[str], file: Path, reference: str) -> None:
    files = _checked(found, lambda: ArchiveFiles(file, label=f"docker-archive:{file}"))
    if files is None:
        return
    with closing(files):
        saved = _checked(found, lambda: saved_images(files)) or []
        chosen = [item for item in saved if not reference or reference in map(familiar, item.tags)]
        if saved and not chosen:
            found.append(f"{files.label} holds no {reference}")
        for item in chosen:
            _saved(found, files, item)
        if files.size("index.json") is not None:
            layout = _checked(found, lambda: OciLayout(files))
            entries = _checked(
                found, lambda: [descriptor(item) for item in items(layout.index().get("manifests"))] if layout else []
            )
            _entries(found, layout, entries or ()) if layout else None


def _saved(found: list[str], files: ArchiveFiles, item: Saved) -> None:
    diff_ids = _checked(found, lambda: _diff_ids(read_config(files, item.config)))
    if diff_ids is None:
        return
    if len(item.layers) != len(diff_ids):
        found.append(f"{len(item.layers)} layers in manifest.json, {len(diff_ids)} diff ids in the config")
        return
    for number, (name, diff_id) in enumerate(zip(item.layers, diff_ids, strict=True)):
        extent = _checked(found, partial(files.extent, name))
        if extent is not None:
            _layer(found, number, partial(unpack, extent, blob=None, diff_id=diff_id, what=f"layer {name[:100]}"))


def _layer(found: list[str], number: int, open_: Callable[[], Extent]) -> None:
    extent = _checked(found, open_)
    if extent is None:
        return
    with closing(extent):
        tar = extent.open()
        _checked(found, partial(read_layer, tar, layer=number))
        while data := tar.read(CHUNK):
            if data.strip(b"\0"):
                # up to the end mark, the archive has been read
                found.append(f"layer {number} hides data behind the end of its archive")
                return


def _compression(found: list[str], extent: Extent, blob: Blob) -> None:
    actual = compression(extent.open())
    if actual != LAYER_TYPES.get(blob.media_type, actual):
        found.append(f"layer {blob.digest} is {actual or 'not compressed'}, and its media type is {blob.media_type}")


def _bytes(layout: OciLayout, blob: Blob) -> None:
    """An artifact's blob, of which nothing is known but its digest and size."""
    with closing(layout.extent(blob)) as extent:
        raw = Forward(extent.open(), limit=extent.size)
        drain(raw)
    if (raw.digest(), raw.tell()) != (blob.digest, blob.size):
        msg = f"blob {blob.digest} does not have the bytes its digest promises"
        raise VerificationError(msg)


def _is_attestation(layers: list[Blob]) -> bool:
    """BuildKit's attestations have an image's config, and layers that are none (in-toto statements)."""
    return bool(layers) and all(layer.media_type == "application/vnd.in-toto+json" for layer in layers)


def _diff_ids(config: bytes) -> tuple[Sha256, ...]:
    rootfs = json_object(config, what="image config").get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        msg = "the config has no rootfs of type layers"
        raise UsageError(msg)
    parse_config(config)
    return parse_diff_ids(rootfs.get("diff_ids"))


def _checked(found: list[str], check: Callable[[], Result]) -> Result | None:
    try:
        return check()
    except SconifyError as error:
        found.append(error.message)
        return None
