"""Layers and images of every form, valid ones and what reads them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from contextlib import suppress

from fuzz.scratch import scratch, stored
from parts.images import file, folder, layer_bytes, symlink

from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.tree import decode_tree, encode_tree
from sconify_tasks.image.config import identity_of, parse_config
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.merge import MergedView
from sconify_tasks.image.references import open_source
from sconify_tasks.image.streams import uncompressed
from sconify_tasks.image.tar_write import write_tar
from sconify_tasks.image.validate import violations


def layers() -> list[bytes]:
    low = layer_bytes(folder(b"/a"), file(b"/a/b", b"content" * 99, xattrs=((b"user.x", b"1"),)), symlink(b"/l", b"a"))
    up = io.BytesIO()
    with tarfile.open(fileobj=up, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in (
            ("a", tarfile.DIRTYPE, ""),
            ("a/.wh.b", tarfile.REGTYPE, ""),
            ("a/.wh..wh..opq", tarfile.REGTYPE, ""),
            ("dev", tarfile.CHRTYPE, ""),
            ("f" * 90, tarfile.REGTYPE, ""),
            ("h", tarfile.LNKTYPE, "f" * 90),
            ("s", tarfile.SYMTYPE, "t" * 300),
            ("n" * 200, tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, 1.5
            archive.addfile(info)
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("g" * 180 + "/x")
        info.type, info.linkname = tarfile.SYMTYPE, "u" * 300
        archive.addfile(info)
    return [low, up.getvalue(), gnu.getvalue()]


def run_layer(data: bytes) -> None:
    """Merged over another layer, walked, as a tree there and back, and written as a tar that says the same."""
    below = read_layer(io.BytesIO(layers()[0]), layer=0)
    view = MergedView([below, read_layer(io.BytesIO(data), layer=1)])
    found = [found.entry for found in view.walk([b"/"])]
    ids = {Kind.FILE: bytes(32)}
    tree = [ManifestEntry(meta=entry, content=ids.get(entry.kind, b"")) for entry in found]
    decode_tree(encode_tree(tree))
    bare = [(entry, None) for entry in found if entry.kind is not Kind.FILE and entry.path != b"/"]
    write_tar(bare, io.BytesIO())


def run_compressed(data: bytes) -> None:
    stream = uncompressed(io.BytesIO(data))
    while stream.read(1 << 16):
        pass


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def config() -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/a/b"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}, "User": "1"},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layers()[0])]},
    }
    return json.dumps(document).encode()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(data), "size": len(data)}


def layout(config: bytes, layer: bytes) -> dict[str, bytes]:
    manifest = json.dumps(
        {"schemaVersion": 2, "config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar", layer)]}
    ).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]}).encode()
    blobs = {f"blobs/sha256/{sha256(blob)[7:]}": blob for blob in (manifest, config, layer)}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}


def oci_archive() -> bytes:
    return tar_of(layout(config(), layers()[0]))


def docker_members(config: bytes) -> dict[str, bytes]:
    saved = json.dumps([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}]).encode()
    return {"manifest.json": saved, "c.json": config, "l.tar": layers()[0]}


def read_image(form: str, data: bytes) -> None:
    ref = f"{form}:{stored(data, 'archive')}"
    violations(ref)

    def none() -> object:
        raise AssertionError("no engine is asked")

    source = open_source(ref, docker=none, default_oci_store=scratch() / "none")  # type: ignore[arg-type]
    try:
        _ = source.identity
        with source.walk([b"/"]) as stream:
            for _, content in stream:
                if content is not None:
                    content.read()
    finally:
        source.close()


def run_config(data: bytes) -> None:
    """Alone, and as the properly named config of an image of either form."""
    parsed = None
    with suppress(SconifyError):
        parsed = parse_config(data)
    if parsed is not None:
        identity_of(parsed, ())
    with suppress(SconifyError):
        read_image("docker-archive", tar_of(docker_members(data)))
    read_image("oci-archive", tar_of(layout(data, layers()[0])))


def run_docker_manifest(data: bytes) -> None:
    read_image("docker-archive", tar_of(docker_members(config()) | {"manifest.json": data}))


def run_oci_index(data: bytes) -> None:
    read_image("oci-archive", tar_of(layout(config(), layers()[0]) | {"index.json": data}))


def run_oci_manifest(data: bytes) -> None:
    """Named by a proper index: digests are no hindrance."""
    index = json.dumps({"manifests": [descriptor("manifest.v1+json", data)]}).encode()
    whole = layout(config(), layers()[0]) | {"index.json": index, f"blobs/sha256/{sha256(data)[7:]}": data}
    read_image("oci-archive", tar_of(whole))


def manifests() -> list[bytes]:
    return [one for one in layout(config(), layers()[0]).values() if one.startswith(b'{"schemaVersion": 2, "config"')]
