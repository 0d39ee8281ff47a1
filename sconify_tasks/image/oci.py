"""`oci:DIR[:TAG]`: an image in an OCI image layout (image-spec image-layout.md). Every blob is verified when it is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from sconify_tasks.errors import UnavailableError, UsageError, VerificationError
from sconify_tasks.image.config import identity_of, json_object, parse_config, parse_diff_ids
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import LayerIndex, read_layer
from sconify_tasks.image.merge import Found, MergedView
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path, shown
from sconify_tasks.image.streams import CHUNK, Forward, drain, part, uncompressed

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = frozenset({INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})
_MANIFESTS = frozenset({MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
LAYER_TYPES = frozenset(
    {TAR, TAR + "+gzip", TAR + "+zstd"}
    | {"application/vnd.oci.image.layer.nondistributable.v1.tar" + suffix for suffix in ("", "+gzip", "+zstd")}
    | {"application/vnd.docker.image.rootfs.diff.tar" + suffix for suffix in ("", ".gzip", ".zstd")}
)
DOCUMENT = 8 << 20  # index, manifest, config: the registries' own limit is 4 MiB
_DEPTH = 4
_HINT = "pull or build the image again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A descriptor: what the layout says about a blob before it is read."""

    media_type: str
    digest: Sha256
    size: int
    document: Mapping[str, Any]


class OciLayout:
    """The blobs of one layout folder, verified when read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        marker = _read_file(folder / "oci-layout", DOCUMENT, f"oci:{folder}")
        version = json_object(marker, what=f"{folder}/oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            msg = f"oci:{folder} has layout version {version!r}"
            raise UsageError(msg, hint="this program reads version 1.0.0")

    def index(self) -> dict[str, Any]:
        """Parse index.json, which names all images of the layout."""
        return json_object(_read_file(self.folder / "index.json", DOCUMENT, f"oci:{self.folder}"), what="index.json")

    def path(self, digest: Sha256) -> Path:
        """Return where a blob lies."""
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def document(self, blob: Blob) -> dict[str, Any]:
        """Read a JSON blob."""
        return json_object(self.bytes(blob), what=f"blob {blob.digest}")

    def bytes(self, blob: Blob) -> bytes:
        """Read a small blob whole. VerificationError where it is not what its descriptor says."""
        if blob.size > DOCUMENT:
            msg = f"blob {blob.digest} is a document of {blob.size} bytes"
            raise UsageError(msg, hint=_HINT)
        data = _read_file(self.path(blob.digest), blob.size, f"blob {blob.digest}")
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.digest.removeprefix("sha256:"):
            raise not_what_it_says(blob)
        return data


def descriptor(document: object) -> Blob:
    """Check the shape of a descriptor (image-spec descriptor.md)."""
    try:
        assert isinstance(document, dict)
        size, media_type = document["size"], document["mediaType"]
        assert isinstance(size, int)
        assert isinstance(media_type, str)
        assert size >= 0
        return Blob(media_type=media_type, digest=Sha256(document["digest"]), size=size, document=document)
    except (AssertionError, KeyError, ValueError, TypeError) as error:
        msg = f"damaged descriptor: {str(document)[:120]}"
        raise UsageError(msg, hint=_HINT) from error


class OciSource:
    """One image of a layout as a `SourceImage`. Layers are unpacked and indexed when something inside is asked for."""

    def __init__(self, folder: Path, tag: str = "", *, platform: str = "linux/amd64") -> None:
        self._layout = OciLayout(folder)
        self._name = f"oci:{folder}" + (f":{tag}" if tag else "")
        self.manifest = _choose(self._layout, tag, platform, self._name)
        document = self._layout.document(self.manifest)
        self._config = parse_config(self._layout.bytes(descriptor(document.get("config"))))
        self._diff_ids = parse_diff_ids(_mapping(self._config.raw.get("rootfs")).get("diff_ids"))
        self.layers = tuple(descriptor(item) for item in _list(document.get("layers")))
        _check_layers(self.layers, self._diff_ids, self._name)
        _check_platform(self._config, platform, self._name)
        self._lock = Lock()
        self._files: list[BinaryIO] = []
        self._view: MergedView | None = None

    @property
    def name(self) -> str:
        """As given, with the transport."""
        return self._name

    @property
    def identity(self) -> str:
        """SHA-256 over layers and config."""
        return identity_of(self._config, self._diff_ids)

    @property
    def config(self) -> ImageConfig:
        """The parsed image config."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """Digests of the uncompressed layers, the lowest first."""
        return self._diff_ids

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        check_path(path)
        found = self._merged().lstat(path)
        return found.entry if found else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        check_path(path)
        return self._merged().listdir(path)

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, parents first, siblings sorted."""
        wanted = list(roots)
        for root in wanted:
            check_path(root)
        yield self._contents(wanted)

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        check_path(path)
        found = self._merged().lstat(path)
        if found is None or found.entry.kind is not Kind.FILE:
            msg = f"{shown(path)} is not a file in {self._name}"
            raise UsageError(msg, hint="check the path")
        if found.entry.size > limit:
            msg = f"{shown(path)} has {found.entry.size} bytes: more than the {limit} that are read here"
            raise UsageError(msg, hint="check the path")
        return self._content(found).read()

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Give the layers as uncompressed tars: the blob itself, or an unpacked copy that vanishes with this source."""
        self._merged()
        yield tuple(
            Layer(diff_id=diff_id, size=os.fstat(file.fileno()).st_size, path=Path(f"/proc/self/fd/{file.fileno()}"))
            for diff_id, file in zip(self._diff_ids, self._files, strict=True)
        )

    def blob_path(self, blob: Blob) -> Path:
        """Return where a blob of this image lies, as it is; whoever copies it verifies it."""
        return self._layout.path(blob.digest)

    def close(self) -> None:
        """Forget the unpacked layers."""
        with self._lock:
            for file in self._files:
                file.close()
            self._files, self._view = [], None

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for found in self._merged().walk(roots):
            yield found.entry, self._content(found) if found.entry.kind is Kind.FILE else None

    def _content(self, found: Found) -> BinaryIO:
        return part(self._files[found.layer].fileno(), found.offset, found.entry.size)

    def _merged(self) -> MergedView:
        with self._lock:
            if self._view is None:
                self._view = MergedView(self._indexes())
            return self._view

    def _indexes(self) -> Iterator[LayerIndex]:
        self._files = []
        for number, (blob, diff_id) in enumerate(zip(self.layers, self._diff_ids, strict=True)):
            self._files.append(open_layer(self._layout.path(blob.digest), blob, diff_id))
            yield read_layer(self._files[-1], layer=number)
            self._files[-1].seek(0)


def open_layer(path: Path, blob: Blob, diff_id: Sha256) -> BinaryIO:
    """Open a layer uncompressed, after verifying blob digest, size and diff id.

    A compressed layer is unpacked into a nameless temporary file: not even a killed process leaves it behind.
    """
    import tempfile

    try:
        file = path.open("rb")
    except OSError as error:
        msg = f"layer {blob.digest}: {error.strerror}"
        raise UnavailableError(msg, hint=_HINT) from error
    with ExitStack() as closing_file:
        closing_file.callback(file.close)
        raw = Forward(cast("BinaryIO", file), limit=blob.size)
        drain(raw)
        if raw.tell() != blob.size or raw.digest() != blob.digest:
            raise not_what_it_says(blob)
        file.seek(0)
        tar = uncompressed(cast("BinaryIO", file))
        if tar is file and blob.digest == diff_id:
            closing_file.pop_all()  # the very file that was verified, not another that has its name by now
            return tar
        spill = tempfile.TemporaryFile(prefix="sconify-")  # noqa: SIM115
        plain = Forward(tar)
        while data := plain.read(CHUNK):
            spill.write(data)
    if plain.digest() != diff_id:
        spill.close()
        msg = f"layer {blob.digest} unpacks to {plain.digest()}, and the config says {diff_id}"
        raise VerificationError(msg, hint=_HINT)
    spill.seek(0)
    return cast("BinaryIO", spill)


def not_what_it_says(blob: Blob) -> VerificationError:
    """Name a blob whose bytes have another digest or size."""
    return VerificationError(f"blob {blob.digest} does not have the bytes its digest promises", hint=_HINT)


def check_layer_type(blob: Blob) -> None:
    """UsageError for what is no layer tar that this program reads: encrypted layers, artifacts."""
    if blob.media_type not in LAYER_TYPES:
        msg = f"layer {blob.digest} has the media type {blob.media_type[:100]}"
        raise UsageError(msg, hint="layers must be plain, gzip or zstd tars")


def _choose(layout: OciLayout, tag: str, platform: str, name: str) -> Blob:
    """Find the manifest: by tag or digest among the entries of index.json, then by platform through nested indexes."""
    entries = _list(layout.index().get("manifests"))
    tagged = [item for item in entries if not tag or tag in (_tag(item), _mapping(item).get("digest"))]
    tags = sorted({_tag(item) for item in entries if _tag(item)})
    if not tagged:
        msg = f"{name}: no image of that tag"
        raise UnavailableError(msg, hint=f"it holds: {', '.join(tags)[:200] or 'nothing with a tag'}")
    if len({_tag(item) for item in tagged}) > 1:
        msg = f"{name} holds {len(tags)} tagged images"
        raise UsageError(msg, hint=f"name one: {', '.join(tags)[:200]}")
    found = list(_manifests(layout, [descriptor(item) for item in tagged], platform))
    if not found:
        msg = f"{name}: nothing for {platform}"
        raise UnavailableError(msg, hint="choose another platform or image")
    return found[0]


def _manifests(layout: OciLayout, blobs: list[Blob], platform: str, depth: int = 0) -> Iterator[Blob]:
    if depth > _DEPTH:
        msg = "indexes nested too deeply"
        raise UsageError(msg, hint=_HINT)
    for blob in blobs:
        wanted = _platform(blob)
        if wanted not in (None, platform):
            continue
        if blob.media_type in _INDEXES:
            nested = [descriptor(item) for item in _list(layout.document(blob).get("manifests"))]
            yield from _manifests(layout, nested, platform, depth + 1)
        elif blob.media_type in _MANIFESTS:
            yield blob


def _platform(blob: Blob) -> str | None:
    value = blob.document.get("platform")
    if value is None:
        return None
    return f"{_mapping(value).get('os')}/{_mapping(value).get('architecture')}"


def _check_layers(layers: tuple[Blob, ...], diff_ids: tuple[Sha256, ...], name: str) -> None:
    if len(layers) != len(diff_ids):
        msg = f"{name}: {len(layers)} layers in the manifest, {len(diff_ids)} in the config"
        raise VerificationError(msg, hint=_HINT)
    for blob in layers:
        check_layer_type(blob)


def _check_platform(config: ImageConfig, platform: str, name: str) -> None:
    actual = f"{config.os}/{config.architecture}"
    if actual != platform:
        msg = f"{name} is an image for {actual}, not for {platform}"
        raise UsageError(msg, hint="choose another image")


def _tag(item: object) -> str:
    return str(_mapping(_mapping(item).get("annotations")).get(REF_NAME) or "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _read_file(path: Path, limit: int, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        msg = f"{what}: {error.strerror}"
        raise UnavailableError(msg, hint="check the name; an OCI layout has the files oci-layout and index.json") from error
    if len(data) > limit:
        msg = f"{what} is larger than {limit} bytes"
        raise UsageError(msg, hint=_HINT)
    return data
