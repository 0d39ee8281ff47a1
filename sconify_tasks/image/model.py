"""Immutable values: references, digests, the parts of an image config that the build uses, and a finished image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from msgspec import Struct, field

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Sha256(str):
    """An OCI digest, `sha256:` and 64 lower-case hex digits."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raise ValueError for anything else."""
        if not _SHA256.match(value):
            msg = f"not a sha256 digest: {value[:90]!r}"
            raise ValueError(msg)
        return super().__new__(cls, value)


class ImageConfig(Struct, frozen=True, kw_only=True):
    """The OCI image config (image-spec config.md), parsed and checked. `raw` is the whole JSON object."""

    architecture: str = "amd64"
    os: str = "linux"
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


class Layer(Struct, frozen=True, kw_only=True):
    """An uncompressed layer tar that lies in a file: diff id equals blob digest."""

    diff_id: Sha256
    size: int
    path: Path


class BuiltImage(Struct, frozen=True, kw_only=True):
    """What a sink delivers: layers of the base (known to `base`), our layers above them, and the config's bytes.

    `config` is the exact JSON of the OCI image config; its rootfs.diff_ids are base_diff_ids + layers' diff ids.
    """

    base_diff_ids: tuple[Sha256, ...]
    layers: tuple[Layer, ...]
    config: bytes
