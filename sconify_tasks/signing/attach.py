"""Put another signature into what was sconified. SIGSTRUCT has a fixed place and size: nothing else of the file changes.

So an image keeps all its layers but one, of which 1808 bytes are other ones; measurement and manifest stay as they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sconify_tasks.errors import StoreError, UsageError, VerificationError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.index import find, read_layer
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink import Delivered
from sconify_tasks.image.sinks import Sinks
from sconify_tasks.image.source import SourceImage
from sconify_tasks.sconified import SIGNATURE, read_sconified
from sconify_tasks.sgx.claims import Claims
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.sigstruct import assemble

_CHUNK = 1 << 20


def new_sigstruct(file: Path, claims: Claims, modulus: int, signature: bytes) -> bytes:
    """Return the SIGSTRUCT for a sconified file. VerificationError for a wrong signature, or data of another file."""
    found = read_sconified(file)
    measured = measure(file, found.config)
    if claims.mrenclave != measured:
        raise VerificationError(
            f"the data was made for MRENCLAVE {claims.mrenclave}, and this measures {measured}",
            hint="make the data from this very image or file, and have it signed",
        )
    return assemble(claims, modulus, signature)


def attach_to_file(file: Path, sigstruct: bytes, out: Path) -> None:
    """Write a copy of the file with this signature; whole or not at all. `out` may be the file itself."""
    place = read_sconified(file).sections[SIGNATURE]
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        try:
            with open(descriptor, "wb") as target, file.open("rb") as source:  # noqa: PTH123 - a descriptor, not a path
                shutil.copyfileobj(source, target, _CHUNK)
                target.seek(place.offset)
                target.write(sigstruct)
            shutil.copymode(file, name)
            Path(name).replace(out)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"{out} can't be written: {error.strerror}", hint="choose another place with --to") from error


def attach_to_image(image: SourceImage, place: bytes, file: Path, sigstruct: bytes, *, sinks: Sinks, to: str) -> Delivered:
    """Deliver the image with this signature. `place` is the sconified binary's path in it, `file` a copy of that binary."""
    offset = read_sconified(file).sections[SIGNATURE].offset
    sink, name = sinks.open(to)
    with image.layer_files() as layers, tempfile.TemporaryDirectory(prefix="sconify-") as folder:
        number, start = _find(layers, place)
        changed = _changed(layers[number], start + offset, sigstruct, Path(folder) / "layer")
        config = _config(image, [*image.diff_ids[:number], changed.diff_id, *image.diff_ids[number + 1 :]])
        # A layout takes the layers below as they are, compressed or not. An engine is sent every layer: it skips what it has.
        below = number if isinstance(image, OciSource) and to.startswith("oci:") else 0
        built = BuiltImage(
            base_diff_ids=image.diff_ids[:below],
            layers=(*layers[below:number], changed, *layers[number + 1 :]),
            config=config,
        )
        return sink.deliver(built, image if below else ScratchSource(), name)


def _find(layers: Sequence[Layer], place: bytes) -> tuple[int, int]:
    """The layer that holds the binary, and where in its tar the content begins."""
    for number in reversed(range(len(layers))):
        with layers[number].path.open("rb") as stream:
            node = find(read_layer(stream, layer=number).root, place)
        if node is not None and node.member is not None and node.member.entry.kind is Kind.FILE:
            return number, node.member.offset
    raise UsageError(
        f"no layer holds {place.decode(errors='replace')}", hint="attach to the image as sconify_image delivered it"
    )


def _changed(layer: Layer, offset: int, sigstruct: bytes, out: Path) -> Layer:
    """A copy of the layer with other bytes at one place."""
    shutil.copyfile(layer.path, out)
    with out.open("r+b") as file:
        file.seek(offset)
        file.write(sigstruct)
        file.flush()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    return Layer(diff_id=Sha256(f"sha256:{digest}"), size=size, path=out)


def _config(image: SourceImage, diff_ids: Sequence[Sha256]) -> bytes:
    """The image's config with other layers; everything else as it is."""
    import rfc8785

    raw: Any = image.config.raw
    document = {
        "architecture": image.config.architecture,
        "os": image.config.os,
        "created": raw.get("created") or raw.get("Created"),
        "config": raw.get("config") or raw.get("Config"),
        "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in diff_ids]},
    }
    return rfc8785.dumps(document)
