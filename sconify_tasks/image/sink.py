"""The interface of a sink: where a finished image goes. One implementation per file (`sink_docker.py`, `sink_oci.py`)."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from sconify_tasks.image.model import BuiltImage, Sha256
from sconify_tasks.image.source import SourceImage


class Delivered(Struct, frozen=True, kw_only=True):
    """What was delivered. `identity` is what `present` compares: cheap to find again, and meaningful in this sink only.

    `config_digest` names the same image everywhere; `manifest_digest` is None where the sink has no manifest.
    """

    identity: str
    config_digest: Sha256
    manifest_digest: Sha256 | None


class Sink(Protocol):
    """Complete or absent: a delivery that fails leaves the name as it was."""

    def deliver(self, built: BuiltImage, base: SourceImage, name: str) -> Delivered:
        """Put the image there under `name`; `base` gives the layers below ours where the sink lacks them. Idempotent."""

    def present(self, name: str, expected: str) -> bool:
        """Whether `name` still is what was delivered with the identity `expected`. Cheap; never raises for an absent image."""
