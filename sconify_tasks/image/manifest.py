"""An image's documents as OCI and Docker spell them: media types, descriptors, which layers can be read and which can't.

Sources: image-spec descriptor.md, manifest.md, layer.md; Docker's "Image Manifest V2, Schema 2".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from sconify_tasks.errors import UsageError, VerificationError
from sconify_tasks.image.model import Sha256

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
_DOCKER = "application/vnd.docker."
INDEXES = frozenset({INDEX, _DOCKER + "distribution.manifest.list.v2+json"})
MANIFESTS = frozenset({MANIFEST, _DOCKER + "distribution.manifest.v2+json"})
CONFIGS = frozenset({CONFIG, _DOCKER + "container.image.v1+json"})
_DOCKER_TAR = _DOCKER + "image.rootfs.diff.tar"
# How each type of layer is compressed.
LAYER_TYPES = {
    **{TAR + suffix: suffix.removeprefix("+") for suffix in ("", "+gzip", "+zstd")},
    **{_DOCKER_TAR + suffix: suffix.removeprefix(".") for suffix in ("", ".gzip", ".zstd")},
}
_ELSEWHERE = ("application/vnd.oci.image.layer.nondistributable.", _DOCKER + "image.rootfs.foreign.")
DOCUMENT = 8 << 20  # index, manifest, config: the registries' own limit is 4 MiB
HINT = "pull or build the image again"


class Blob(Struct, frozen=True, kw_only=True):
    """A descriptor: what an image says about a blob before it is read."""

    media_type: str
    digest: Sha256
    size: int
    document: Mapping[str, Any]


def descriptor(document: object) -> Blob:
    """Check the shape of a descriptor (image-spec descriptor.md)."""
    try:
        found: Any = document  # not by assert: this is a stranger's text, whatever the interpreter's flags
        size, media_type = found["size"], found["mediaType"]
        if type(size) is int and size >= 0 and isinstance(media_type, str) and isinstance(found, dict):
            return Blob(media_type=media_type, digest=Sha256(found["digest"]), size=size, document=found)
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(document) from error
    raise _damaged(document)


def _damaged(document: object) -> UsageError:
    return UsageError(f"damaged descriptor: {str(document)[:120]}", hint=HINT)


def check_layer_type(blob: Blob) -> None:
    """UsageError for what is no layer tar that this program reads: foreign and encrypted layers, artifacts."""
    if blob.media_type.startswith(_ELSEWHERE):
        msg = f"layer {blob.digest} may not be distributed ({blob.media_type[:100]}): its bytes belong to another place"
        raise UsageError(msg, hint="rebuild the image on a base whose layers may be copied")
    if blob.media_type not in LAYER_TYPES:
        msg = f"layer {blob.digest} has the media type {blob.media_type[:100]}"
        raise UsageError(msg, hint="layers must be plain, gzip or zstd tars")


def not_what_it_says(blob: Blob) -> VerificationError:
    """Name a blob whose bytes have another digest or size."""
    return VerificationError(f"blob {blob.digest} does not have the bytes its digest promises", hint=HINT)


def encode(document: Mapping[str, Any]) -> bytes:
    """Write a document in one way only."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object of a foreign document; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """A JSON array of a foreign document; an empty one for anything else."""
    return value if isinstance(value, list) else []


def tag_of(item: object) -> str:
    """The tag of an entry of index.json, or ""."""
    return str(mapping(mapping(item).get("annotations")).get(REF_NAME) or "")
