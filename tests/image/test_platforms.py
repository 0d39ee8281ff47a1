"""Indexes of many platforms, as registries and BuildKit make them: nested, with attestations, variants and mixed media types."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest
import zstandard
from parts.images import file, layer_bytes

from sconify_tasks.errors import UnavailableError, UsageError, VerificationError
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.validate import validate, violations

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
INDEX = OCI + "index.v1+json"


class Layout:
    """A layout that is written by hand."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(self, media_type, content, **more):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(
        self, architecture, *, variant="", docker=False, compress=(".gzip", "+gzip", gzip.compress), said=True, layer_type=""
    ):
        tar = layer_bytes(file(b"/arch", f"{architecture}{variant}".encode()))
        family = DOCKER if docker else OCI
        kind = layer_type or (DOCKER + "image.rootfs.diff.tar" + compress[0] if docker else OCI + "layer.v1.tar" + compress[1])
        platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        config = platform | {
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
        }
        media_type = family + ("distribution.manifest.v2+json" if docker else "manifest.v1+json")
        manifest = {
            "schemaVersion": 2, "mediaType": media_type,
            "config": self.put(family + ("container.image.v1+json" if docker else "config.v1+json"), config),
            "layers": [self.put(kind, compress[2](tar))],
        }  # fmt: skip
        return self.put(media_type, manifest, **({"platform": platform} if said else {}))

    def attestation(self):
        config = {"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
        manifest = {
            "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": self.put(OCI + "config.v1+json", config),
            "layers": [self.put("application/vnd.in-toto+json", {"_type": "https://in-toto.io/Statement/v0.1"})],
        }  # fmt: skip
        unknown = {"architecture": "unknown", "os": "unknown"}
        return self.put(OCI + "manifest.v1+json", manifest, platform=unknown)

    def index(self, *entries, docker=False):
        media_type = DOCKER + "distribution.manifest.list.v2+json" if docker else INDEX
        return self.put(media_type, {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)})

    def write(self, *entries, tag="t"):
        named = [entry | {"annotations": {"org.opencontainers.image.ref.name": tag}} for entry in entries]
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}))

    def taken(self, platform):
        return OciSource(self.folder, "t", platform=platform).read(b"/arch", limit=100)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "oci")


def test_each_platform_of_a_mixed_nested_index_is_found_past_the_attestations(layout):
    plain, zstd = ("", "", lambda data: data), (".zstd", "+zstd", zstandard.compress)
    nested = layout.index(
        layout.image("arm64", variant="v8", docker=True), layout.image("arm", variant="v7", compress=zstd), docker=True
    )
    layout.write(
        layout.index(layout.attestation(), layout.image("amd64", compress=plain), nested, layout.image("s390x", said=False))
    )
    validate(layout.folder, "t")
    assert {platform: layout.taken(f"linux/{platform}") for platform in ("amd64", "arm64", "arm64/v8", "arm", "s390x")} == {
        "amd64": b"amd64", "arm64": b"arm64v8", "arm64/v8": b"arm64v8", "arm": b"armv7", "s390x": b"s390x",
    }  # fmt: skip


def test_a_platform_that_is_missing_is_told_with_those_that_are_there(layout):
    layout.write(layout.index(layout.image("arm64", variant="v8"), layout.image("arm", variant="v6"), layout.attestation()))
    with pytest.raises(UnavailableError, match="nothing for linux/amd64") as caught:
        layout.taken("linux/amd64")
    assert caught.value.hint == "it holds linux/arm/v6, linux/arm64/v8"


def test_of_several_variants_the_usual_one_is_taken_wherever_it_stands(layout):
    layout.write(layout.index(layout.image("amd64", variant="v3"), layout.image("amd64"), layout.image("arm64", variant="v9")))
    assert layout.taken("linux/amd64") == b"amd64"
    assert layout.taken("linux/arm64") == b"arm64v9"
    assert layout.taken("linux/amd64/v3") == b"amd64v3"
    with pytest.raises(UnavailableError, match="nothing for linux/arm64/v8"):
        layout.taken("linux/arm64/v8")


def test_an_index_that_says_another_platform_than_the_config_is_refused(layout):
    lying = layout.image("arm64") | {"platform": {"os": "linux", "architecture": "amd64"}}
    layout.write(lying)
    with pytest.raises(UsageError, match="is an image for linux/arm64"):
        layout.taken("linux/amd64")


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [
        (OCI + "layer.nondistributable.v1.tar+gzip", "may not be distributed"),
        (DOCKER + "image.rootfs.foreign.diff.tar.gzip", "may not be distributed"),
        (OCI + "layer.v1.tar+gzip+encrypted", "has the media type"),
        ("application/octet-stream", "has the media type"),
    ],
)
def test_layers_that_can_not_be_taken_over_are_refused_with_the_reason(layout, media_type, reason):
    layout.write(layout.image("amd64", layer_type=media_type))
    with pytest.raises(UsageError, match=reason):
        layout.taken("linux/amd64")
    assert any(reason in line for line in violations(layout.folder, "t"))


def test_validation_looks_at_every_platform_and_every_attestation(layout):
    good, bad, proof = layout.image("amd64"), layout.image("arm64"), layout.attestation()
    layout.write(layout.index(good, bad, proof))
    validate(layout.folder, "t")
    for entry in (bad, proof):
        manifest = json.loads((layout.folder / "blobs" / "sha256" / entry["digest"][7:]).read_text())
        damaged = layout.folder / "blobs" / "sha256" / manifest["layers"][0]["digest"][7:]
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(VerificationError, match=damaged.name):
            validate(layout.folder, "t")
        damaged.write_bytes(content)
    assert layout.taken("linux/amd64") == b"amd64"


def test_a_compression_that_is_not_the_media_types_is_a_violation(layout):
    layout.write(layout.image("amd64", compress=("", "", gzip.compress)))
    assert any("is gzip" in line for line in violations(layout.folder, "t"))
