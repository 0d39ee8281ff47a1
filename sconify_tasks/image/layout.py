"""An OCI image layout (image-spec image-layout.md), in a folder or in an archive of one. Every blob is verified when read."""

from __future__ import annotations

import hashlib
from typing import Any

from sconify_tasks.errors import UsageError
from sconify_tasks.image.config import json_object
from sconify_tasks.image.extent import Extent
from sconify_tasks.image.files import Files, read_small
from sconify_tasks.image.manifest import DOCUMENT, HINT, Blob, not_what_it_says
from sconify_tasks.image.model import Sha256

# Of all that is read through one layout: indexes may name each other, and one config, any number of times.
_DOCUMENTS, _BYTES = 20_000, 256 << 20


class OciLayout:
    """The index and the blobs of a layout."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._read = 0
        self.documents: list[str] = ["oci-layout"]  # what was read beside the index: a record of what an answer rests on
        marker = read_small(files, "oci-layout", DOCUMENT)
        version = json_object(marker, what=f"{files.label}: oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            msg = f"{files.label} has layout version {version!r}"
            raise UsageError(msg, hint="this program reads version 1.0.0")

    def index(self) -> dict[str, Any]:
        """Parse index.json, which names all images of the layout."""
        return json_object(read_small(self.files, "index.json", DOCUMENT), what="index.json")

    def extent(self, blob: Blob) -> Extent:
        """Open a blob as it is; whoever reads it verifies it."""
        return self.files.extent(blob_name(blob.digest))

    def holds(self, blob: Blob) -> bool:
        """Whether the blob is there, in its length."""
        return self.files.size(blob_name(blob.digest)) == blob.size

    def document(self, blob: Blob) -> dict[str, Any]:
        """Read a JSON blob."""
        return json_object(self.bytes(blob), what=f"blob {blob.digest}")

    def bytes(self, blob: Blob) -> bytes:
        """Read a small blob whole. VerificationError where it is not what its descriptor says."""
        if blob.size > DOCUMENT:
            msg = f"blob {blob.digest} is a document of {blob.size} bytes"
            raise UsageError(msg, hint=HINT)
        self._read += blob.size
        if self._read > _BYTES or len(self.documents) > _DOCUMENTS:
            msg = f"{self.files.label} has too many indexes, manifests and configs, or too large ones"
            raise UsageError(msg, hint=HINT)
        self.documents.append(blob_name(blob.digest))
        data = read_small(self.files, blob_name(blob.digest), DOCUMENT)
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.digest.removeprefix("sha256:"):
            raise not_what_it_says(blob)
        return data


def blob_name(digest: Sha256) -> str:
    """Return the name of a blob's file."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
