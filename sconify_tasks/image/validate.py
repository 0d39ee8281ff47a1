"""Re-derives everything an image in an OCI layout claims: digests, sizes, diff ids, the config, the layers' archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from sconify_tasks.errors import SconifyError, UsageError, VerificationError
from sconify_tasks.image.config import json_object, parse_config, parse_diff_ids
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.model import Sha256
from sconify_tasks.image.oci import (
    MANIFEST,
    REF_NAME,
    Blob,
    OciLayout,
    check_layer_type,
    descriptor,
    open_layer,
)
from sconify_tasks.image.streams import CHUNK

Result = TypeVar("Result")


def validate(layout_dir: Path, tag: str) -> None:
    """Check the image that `tag` names, in every layer. VerificationError lists all violations, one a line."""
    violations = list(_violations(layout_dir, tag))
    if violations:
        msg = f"oci:{layout_dir}:{tag} is not valid:\n" + "\n".join(violations)
        raise VerificationError(msg, hint="build it again")


def _violations(folder: Path, tag: str) -> Iterator[str]:
    found: list[str] = []
    layout = _checked(found, lambda: OciLayout(folder))
    index = _checked(found, layout.index) if layout else None
    entries = [item for item in (index or {}).get("manifests") or [] if _names(item, tag)]
    if layout and len(entries) != 1:
        found.append(f"index.json has {len(entries)} images tagged {tag}")
    if layout and len(entries) == 1:
        _manifest(found, layout, entries[0])
    yield from found


def _manifest(found: list[str], layout: OciLayout, entry: object) -> None:
    blob = _checked(found, lambda: descriptor(entry))
    document = _checked(found, lambda: layout.document(blob)) if blob else None
    if blob is None or document is None:
        return
    if document.get("schemaVersion") != 2 or document.get("mediaType", MANIFEST) != blob.media_type:  # noqa: PLR2004
        found.append(f"manifest {blob.digest}: schema version or media type differ from its descriptor's")
    diff_ids = _checked(found, lambda: _diff_ids(layout, descriptor(document.get("config"))))
    items = document.get("layers") or []
    layers = [blob for item in items if (blob := _checked(found, partial(descriptor, item)))]
    if diff_ids is None:
        return
    if len(layers) != len(diff_ids):
        found.append(f"{len(layers)} layers in the manifest, {len(diff_ids)} diff ids in the config")
        return
    _layers(found, layout, layers, diff_ids)


def _diff_ids(layout: OciLayout, blob: Blob) -> tuple[Sha256, ...]:
    data = layout.bytes(blob)
    rootfs = json_object(data, what="image config").get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        msg = "the config has no rootfs of type layers"
        raise UsageError(msg)
    parse_config(data)
    return parse_diff_ids(rootfs.get("diff_ids"))


def _layers(found: list[str], layout: OciLayout, layers: list[Blob], diff_ids: tuple[Sha256, ...]) -> None:
    for number, (blob, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
        _checked(found, partial(check_layer_type, blob))
        with _opened(found, layout.path(blob.digest), blob, diff_id) as tar:
            if tar is not None:
                _checked(found, partial(read_layer, tar, layer=number))
                _trailer(found, tar, blob)


@contextmanager
def _opened(found: list[str], path: Path, blob: Blob, diff_id: Sha256) -> Iterator[BinaryIO | None]:
    tar = _checked(found, lambda: open_layer(path, blob, diff_id))
    if tar is None:
        yield None
        return
    with closing(tar):
        yield tar


def _trailer(found: list[str], tar: BinaryIO, blob: Blob) -> None:
    """Demand that nothing is hidden behind the end mark, up to which the archive has been read."""
    while data := tar.read(CHUNK):
        if data.strip(b"\0"):
            found.append(f"layer {blob.digest} hides data behind the end of its archive")
            return


def _names(item: object, tag: str) -> bool:
    annotations = item.get("annotations") if isinstance(item, dict) else None
    return isinstance(annotations, dict) and annotations.get(REF_NAME) == tag


def _checked(found: list[str], check: Callable[[], Result]) -> Result | None:
    try:
        return check()
    except SconifyError as error:
        found.append(error.message)
        return None
