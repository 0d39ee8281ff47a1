"""Which manifest of a layout is meant: by tag or digest, then by platform, through nested indexes (image-index.md)."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image.layout import OciLayout
from sconify_tasks.image.manifest import CONFIGS, HINT, INDEXES, MANIFESTS, Blob, descriptor, items, mapping, tag_of

_DEPTH = 4
_MOST = 1000
_UNKNOWN = "unknown"
# What a platform without a variant means (containerd, platforms/defaults): these are the ones to take first.
_USUAL = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


class Candidate(Struct, frozen=True, kw_only=True):
    """An image of an index and what it is for."""

    blob: Blob
    os: str
    architecture: str
    variant: str

    @property
    def platform(self) -> str:
        """`linux/arm64/v8`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def fits(self, platform: str) -> bool:
        """Whether it is for that OS/ARCH[/VARIANT]; a variant that is left out on either side is the usual one, or any."""
        system, architecture, variant = (*platform.split("/"), "", "")[:3]
        if (self.os, self.architecture) != (system, architecture):
            return False
        return not variant or variant == (self.variant or _USUAL.get(architecture, ""))

    def rank(self) -> tuple[bool, str]:
        """Order of candidates that fit alike: the usual variant first."""
        usual = _USUAL.get(self.architecture, "")
        return ((self.variant or usual) != usual, self.variant)


def choose(layout: OciLayout, tag: str, platform: str, name: str) -> Blob:
    """Find the image. UnavailableError says what there is instead."""
    entries = tagged(layout, tag, name)
    found = [one for one in images(layout, entries) if one.os != _UNKNOWN]
    fitting = sorted((one for one in found if one.fits(platform)), key=Candidate.rank)
    if not fitting:
        held = ", ".join(sorted({one.platform for one in found}))
        msg = f"{name}: nothing for {platform}"
        raise UnavailableError(msg, hint=f"it holds {held[:200]}" if held else "it holds no image")
    return fitting[0].blob


def tagged(layout: OciLayout, tag: str, name: str) -> list[Blob]:
    """The entries of index.json with that tag or digest; all, where none is named and there is but one tag."""
    entries = items(layout.index().get("manifests"))
    chosen = [item for item in entries if not tag or tag in (tag_of(item), mapping(item).get("digest"))]
    tags = sorted({tag_of(item) for item in entries if tag_of(item)})
    if not chosen:
        msg = f"{name}: no image of that tag"
        raise UnavailableError(msg, hint=f"it holds: {', '.join(tags)[:200] or 'nothing with a tag'}")
    if len({tag_of(item) for item in chosen}) > 1:
        msg = f"{name} holds {len(tags)} tagged images"
        raise UsageError(msg, hint=f"name one: {', '.join(tags)[:200]}")
    return [descriptor(item) for item in chosen]


def images(layout: OciLayout, blobs: list[Blob], depth: int = 0) -> Iterator[Candidate]:
    """Every image below these descriptors, and what it is for. What says it is for `unknown` is an attestation."""
    if depth > _DEPTH or len(blobs) > _MOST:
        msg = "indexes nested too deeply" if depth > _DEPTH else f"an index of {len(blobs)} images"
        raise UsageError(msg, hint=HINT)
    for blob in blobs:
        if blob.media_type in INDEXES:
            nested = [descriptor(item) for item in items(layout.document(blob).get("manifests"))]
            yield from images(layout, nested, depth + 1)
        elif blob.media_type in MANIFESTS and (candidate := _candidate(layout, blob)):
            yield candidate


def _candidate(layout: OciLayout, blob: Blob) -> Candidate | None:
    """Take the platform from the descriptor, else from the image's config; None for artifacts that are no images."""
    said = mapping(blob.document.get("platform"))
    if not (said.get("os") and said.get("architecture")):
        config = descriptor(layout.document(blob).get("config"))
        if config.media_type not in CONFIGS:
            return None
        said = layout.document(config)
    parts = [said.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        msg = f"manifest {blob.digest} is for {str(parts)[:80]}"
        raise UsageError(msg, hint=HINT)
    return Candidate(blob=blob, os=parts[0], architecture=parts[1], variant=parts[2])
