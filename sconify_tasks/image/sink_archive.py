"""Delivers into a file: `oci-archive:FILE[:TAG]` and `docker-archive:FILE[:REF]`, each holding that one image.

Equal images give equal bytes. The file is replaced whole, or stays as it was; one that holds anything else is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sconify_tasks.errors import SconifyError, VerificationError
from sconify_tasks.image.archive import ArchiveFiles
from sconify_tasks.image.archive_write import (
    Part,
    archive_bytes,
    docker_parts,
    layer_part,
    refuse_to_replace,
    replacing,
    small_part,
)
from sconify_tasks.image.docker_archive import MANIFEST_JSON, saved_images
from sconify_tasks.image.files import read_small
from sconify_tasks.image.layout import OciLayout, blob_name
from sconify_tasks.image.manifest import CONFIG, DOCUMENT, INDEX, MANIFEST, REF_NAME, Blob, encode, items, tag_of
from sconify_tasks.image.model import BuiltImage, Sha256
from sconify_tasks.image.oci import OciSource, open_layout
from sconify_tasks.image.sink import Delivered
from sconify_tasks.image.sink_oci import LAYOUT, described, layer_descriptor, layout_holds, platform_of
from sconify_tasks.image.source import SourceImage


class OciArchiveSink:
    """A tar of an OCI layout with one image; names are tags."""

    def __init__(self, file: Path) -> None:
        self._file, self._label = file, f"oci-archive:{file}"

    def deliver(self, built: BuiltImage, base: SourceImage, name: str) -> Delivered:
        """Write the archive. Layers of an OCI base come along as they are, all others as plain tars."""
        self._refuse_others(name)
        with _layers(built, base) as layers:
            config = described(CONFIG, built.config)
            manifest = encode(
                {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [item for item, _ in layers]}
            )
            entry = described(MANIFEST, manifest) | {"platform": platform_of(built), "annotations": {REF_NAME: name}}
            index = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
            parts = [
                small_part("oci-layout", LAYOUT),
                small_part("index.json", index),
                small_part(blob_name(Sha256(entry["digest"])), manifest),
                small_part(blob_name(Sha256(config["digest"])), built.config),
                *(part for _, part in layers),
            ]
            with replacing(self._file, self._label) as out:
                out.writelines(archive_bytes(parts))
        digest = Sha256(entry["digest"])
        return Delivered(identity=str(digest), config_digest=Sha256(config["digest"]), manifest_digest=digest)

    def present(self, name: str, expected: str) -> bool:
        """Whether the tag names the manifest, and all blobs that it names are there in their length: headers are read."""
        try:
            layout = open_layout(self._file, archive=True)
            with closing(layout.files):
                return layout_holds(layout, name, expected)
        except (SconifyError, OSError):
            return False

    def _refuse_others(self, name: str) -> None:
        if not self._file.exists():
            return
        try:
            layout: OciLayout = open_layout(self._file, archive=True)
            with closing(layout.files):
                tags = {tag_of(item) for item in items(layout.index().get("manifests"))}
        except SconifyError as error:
            raise refuse_to_replace(self._label, f"is no OCI archive: {error.message}") from error
        if tags - {name}:
            raise refuse_to_replace(self._label, f"holds another image: {', '.join(sorted(tags - {name})) or 'untagged'}")


class DockerArchiveSink:
    """A tar for `docker load`; names are references, or "" for an image without a name."""

    def __init__(self, file: Path) -> None:
        self._file, self._label = file, f"docker-archive:{file}"

    def deliver(self, built: BuiltImage, base: SourceImage, name: str) -> Delivered:
        """Write the archive, every layer as a plain tar."""
        self._refuse_others(name)
        diff_ids = (*built.base_diff_ids, *(layer.diff_id for layer in built.layers))
        with base.layer_files() as below:
            _check_base(built, base)
            carried = (*below[: len(built.base_diff_ids)], *built.layers)
            parts = docker_parts(built.config, diff_ids, carried, tag=name, verify=True)
            with replacing(self._file, self._label) as out:
                out.writelines(archive_bytes(parts))
                out.flush()
                identity = _fingerprint(Path(f"/proc/self/fd/{out.fileno()}"), self._label)
        config = Sha256("sha256:" + hashlib.sha256(built.config).hexdigest())
        return Delivered(identity=identity, config_digest=config, manifest_digest=None)

    def present(self, name: str, expected: str) -> bool:
        """Whether the file still has the members that were written, in their length, under that name: headers are read."""
        del name  # a part of what the fingerprint covers
        try:
            return _fingerprint(self._file, self._label) == expected
        except (SconifyError, OSError):
            return False

    def _refuse_others(self, name: str) -> None:
        if not self._file.exists():
            return
        try:
            with closing(ArchiveFiles(self._file, label=self._label)) as files:
                saved = saved_images(files)
        except SconifyError as error:
            raise refuse_to_replace(self._label, f"is no docker-archive: {error.message}") from error
        names = {tag for item in saved for tag in item.tags}
        if names - {name} or len(saved) > 1:
            raise refuse_to_replace(self._label, f"holds another image: {', '.join(sorted(names)) or 'untagged'}")


@contextmanager
def _layers(built: BuiltImage, base: SourceImage) -> Iterator[list[tuple[dict[str, object], Part]]]:
    """Every layer's descriptor and bytes; the base's are open as long as the block lasts."""
    _check_base(built, base)
    count = len(built.base_diff_ids)
    ours = [(layer_descriptor(layer), layer_part(blob_name(layer.diff_id), layer, verify=True)) for layer in built.layers]
    if isinstance(base, OciSource):
        yield [(_of(blob), _blob_part(base, blob)) for blob in base.layers[:count]] + ours
        return
    with base.layer_files() as below:
        theirs = [
            (layer_descriptor(layer), layer_part(blob_name(layer.diff_id), layer, verify=True)) for layer in below[:count]
        ]
        yield theirs + ours


def _blob_part(base: OciSource, blob: Blob) -> Part:
    return Part(name=blob_name(blob.digest), size=blob.size, digest=blob.digest, open=lambda: base.blob(blob).stream())


def _of(blob: Blob) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size}


def _check_base(built: BuiltImage, base: SourceImage) -> None:
    if base.diff_ids[: len(built.base_diff_ids)] != built.base_diff_ids:
        msg = f"{base.name} does not have the layers that the image was built on"
        raise VerificationError(msg, hint="build again")


def _fingerprint(file: Path, label: str) -> str:
    """SHA-256 over every member's name and length, and manifest.json's bytes; config and layers are named by digest."""
    with closing(ArchiveFiles(file, label=label)) as files:
        members = "".join(f"{files.size(name)} {name}\n" for name in files.names())
        return hashlib.sha256(members.encode() + read_small(files, MANIFEST_JSON, DOCUMENT)).hexdigest()
