"""Small images for tests, made with the project's own writer and compose."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.tar_write import Content, order_key, write_tar

Item = tuple[Entry, Content]


def file(path: bytes, content: bytes = b"", **attributes: Any) -> Item:
    return Entry(path=path, kind=Kind.FILE, size=len(content), **attributes), content


def folder(path: bytes, mode: int = 0o755, **attributes: Any) -> Item:
    return Entry(path=path, kind=Kind.DIR, mode=mode, **attributes), None


def symlink(path: bytes, target: bytes, **attributes: Any) -> Item:
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target, **attributes), None


def layer_bytes(*items: Item) -> bytes:
    out = io.BytesIO()
    write_tar(sorted(items, key=lambda item: order_key(item[0])), out)
    return out.getvalue()


def layer(into: Path, *items: Item) -> Layer:
    """Write a layer tar into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    part = into / "part"
    with part.open("wb") as out:
        written = write_tar(sorted(items, key=lambda item: order_key(item[0])), out)
    path = into / written.diff_id.removeprefix("sha256:")
    part.replace(path)
    return Layer(diff_id=written.diff_id, size=written.size, path=path)


def built(*layers: Layer, base: tuple[Sha256, ...] = (), **config: Any) -> BuiltImage:
    """Make an image of layers with a plain config."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/app/run"], **config},
        "rootfs": {"type": "layers", "diff_ids": [*base, *(layer.diff_id for layer in layers)]},
    }
    return BuiltImage(base_diff_ids=base, layers=layers, config=json.dumps(document).encode())
