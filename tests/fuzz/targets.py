"""Every reader of bytes that others wrote, as a function that raises documented errors only, and valid input for each.

`SconifyError` is what a reader may raise; whatever else comes out is a bug, and so is an accepted input of a canonical
format that its writer would have spelled otherwise.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import zstandard
from parts.images import file, folder, layer_bytes, symlink
from vectors.pattern import pattern

from sconify_cache.digest import Digest
from sconify_cache.keys import content_id
from sconify_cache.record import Record, peek, seal_record, unseal_record
from sconify_tasks import elf
from sconify_tasks.binary_fs.index import HEADER, decode_index, encode_index
from sconify_tasks.binary_fs.reading import open_section
from sconify_tasks.cas.frames import decode_body as decode_frame
from sconify_tasks.cas.frames import encode_frame, expect, hex_bytes
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.manifest import check_manifest, decode_body, encode_body, fspf_tag, open_manifest
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.fspf.tree import decode_tree, encode_tree
from sconify_tasks.image.config import identity_of, parse_config
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.merge import MergedView
from sconify_tasks.image.references import open_source, parse_reference
from sconify_tasks.image.streams import uncompressed
from sconify_tasks.image.tar_write import write_tar
from sconify_tasks.image.validate import violations
from sconify_tasks.interpolation import Variables
from sconify_tasks.policy.parse import check_supported, parse_session
from sconify_tasks.project_file import parse_file
from sconify_tasks.sconified import CONFIG, SIGNATURE, read_sconified, write_sconified
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig, decode_config
from sconify_tasks.sgx.quote import parse_quote
from sconify_tasks.sgx.sigstruct import parse_signed_data, parse_sigstruct, verify_sigstruct

TESTS = Path(__file__).parents[1]
KEY = bytes(range(32))
BINARY = MeasuredBinary(path="/a/b", sha256="ab" * 32, size=5, protected=True)
PROTECTED = MeasuredConfig(heap=4096, stack=4096, dlopen=0, fork=0, mprotect=0, threads=1, binary=BINARY).encode()


@dataclass(frozen=True, kw_only=True)
class Target:
    """`run` takes any bytes; `seeds` makes valid ones."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def vectors(name: str, field: str) -> list[bytes]:
    cases = json.loads((TESTS / "vectors" / f"{name}.json").read_text())["cases"]
    return [bytes.fromhex(case[field]) for case in cases]


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="sconify-fuzz-"))


def stored(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def libraries() -> list[bytes]:
    """A program and a library of this machine, as far as their headers reach, and what is left of them without a table."""
    program = Path(sys.executable).resolve().read_bytes()
    return [program[: 64 << 10], elf_of([]), elf_of([(b".sconify.elf", b"\x7fELF")])]


def elf_of(sections: list[tuple[bytes, bytes]]) -> bytes:
    """A small ELF file with a loader, a library and these sections."""
    import struct

    strings = b"\0libc.so.6\0/lib\0"
    loader = b"/lib64/ld.so\0"
    base = 64 + 56 * 3
    dynamic = struct.pack("<QQQQQQQQQQ", 1, 1, 29, 11, 5, 0x1000 + base + len(loader), 0x6FFFFFFB, 0x08000000, 0, 0)
    body = loader + strings + dynamic
    names = b"\0.shstrtab\0" + b"".join(name + b"\0" for name, _ in sections)
    data = b"".join(content for _, content in sections)
    start = base + len(body)
    table = start + len(names) + len(data)
    headers = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, start, len(names), 0, 0, 1, 0)
    at, name_at = start + len(names), 11
    for name, content in sections:
        headers += struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, at, len(content), 0, 0, 1, 0)
        at, name_at = at + len(content), name_at + len(name) + 1
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0x1000, 64, table, 0, 64, 56, 3, 64, 2 + len(sections), 1)

    def program(kind: int, flags: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, 0x1000 + offset, 0, size, size, 4096)

    programs = program(1, 6, 0, start) + program(3, 4, base, len(loader))
    programs += program(2, 6, base + len(loader) + len(strings), len(dynamic))
    return header + programs + body + names + data + headers


@cache
def sconified() -> bytes:
    runtime, out = stored(elf_of([]), "runtime"), scratch() / "sconified"
    write_sconified(runtime, out, {CONFIG: PROTECTED, SIGNATURE: vectors("sigstruct", "sigstruct")[0]})
    read_sconified(out)
    return out.read_bytes()


def run_elf(data: bytes) -> None:
    for read in (elf.inspect, elf.load_image, elf.sections):
        with suppress(SconifyError):
            read(data)


def run_write_sconified(data: bytes) -> None:
    """What is written on top of any runtime that is taken is read back, or refused for the table that the runtime had."""
    out = scratch() / "written"
    out.unlink(missing_ok=True)
    try:
        write_sconified(stored(data, "any-runtime"), out, {CONFIG: PROTECTED, SIGNATURE: vectors("sigstruct", "sigstruct")[0]})
    except SconifyError:
        assert not out.exists()
        assert not list(scratch().glob(".written.*"))
        raise
    read_sconified(out)


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


def run_manifest(data: bytes) -> None:
    manifest = decode_body(data)
    check_manifest(manifest)
    assert encode_body(manifest) == data


def run_stored_manifest(data: bytes) -> None:
    """With the tag that it has: as if the session named it."""
    open_manifest(KEY, fspf_tag(data), data)


def run_tree(data: bytes) -> None:
    assert encode_tree(decode_tree(data)) == data


def trees() -> list[bytes]:
    bodies = (decode_body(body) for body in vectors("manifest", "body"))
    return [encode_tree(replace(entry, protection=Protection.NONE) for entry in body.entries) for body in bodies]


def run_index(data: bytes) -> None:
    size = int.from_bytes(data[:4], "little")
    assert encode_index(decode_index(data[4:], data=size)) == data[4:]


def run_section(data: bytes) -> None:
    """With the root hash that it has: as if it were measured."""
    header = data[: HEADER.size]
    start = HEADER.size + (HEADER.unpack(header)[3] if len(header) == HEADER.size else 0)
    section = open_section(io.BytesIO(data), offset=0, size=len(data), root=hashlib.sha256(header + data[start:]).digest())
    for extent in section.index.extents.values():
        for _ in section.read(extent):
            pass


def embedded() -> list[bytes]:
    cases = json.loads((TESTS / "vectors" / "binary_fs.json").read_text())["cases"]
    made = []
    for case in cases:
        contents = b"".join(pattern(size) for size in case["data"])
        made.append(bytes.fromhex(case["header"]) + contents + bytes.fromhex(case["index"]))
    return [one for one in made if len(one) < 300_000]


def indexes() -> list[bytes]:
    cases = json.loads((TESTS / "vectors" / "binary_fs.json").read_text())["cases"]
    return [sum(case["data"]).to_bytes(4, "little") + bytes.fromhex(case["index"]) for case in cases]


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


def run_sigstruct(data: bytes) -> None:
    with suppress(SconifyError):
        parse_signed_data(data[:256])
    verify_sigstruct(parse_sigstruct(data))


def run_measured_config(data: bytes) -> None:
    assert decode_config(data).encode() == data


def run_project(data: bytes) -> None:
    parse_file(Path("/p/sconify.yaml"), data, variables=Variables(given={"X": "1"}))


def run_session(data: bytes) -> None:
    session = parse_session(data.decode(errors="surrogateescape"))
    with suppress(SconifyError):
        check_supported(session)


def run_frame(data: bytes) -> None:
    message = decode_frame(data)
    expect(message, "config", ("quote",))
    assert len(hex_bytes(message["quote"], 4, "the quote")) == 4


def run_record(data: bytes) -> None:
    """Under its own seal nothing but the very text comes back; under any seal, whatever is cleaned away is looked at."""
    text = data.decode(errors="surrogateescape")
    peek(text)
    found = unseal_record(text, KEY, RECORD.key)
    assert found is None or (found == RECORD and data == record())


RECORD = Record(
    key=Digest(content_id(KEY, b"key")), step="encrypt", outputs={"layer": Digest(content_id(KEY, b"layer"))}, facts={"n": 1}
)


def record() -> bytes:
    return seal_record(RECORD, KEY).encode()


def run_quote(data: bytes) -> None:
    assert parse_quote(data).to_bytes() == data


def quotes() -> list[bytes]:
    return [(TESTS / "quotes" / "data" / "intel_sample.quote").read_bytes()]


def run_reference(data: bytes) -> None:
    parse_reference(data.decode(errors="surrogateescape"))


PROJECT = (
    b"version: 1\nproject: p\nkey-epoch: 3\ninclude: [a/*.yaml]\ndefaults: &d {heap: 1G, dir: [/app]}\n"
    b"templates:\n  t: {env: ['A=${X:-1}'], dir+: /b}\nimages:\n  one: {extends: t, from: a:1, to: 'b:1', binary: /c, fork: 1}\n"
)
SESSION = (
    b"name: ns/python\nversion: '0.3'\naccess_policy: {read: [CREATOR], update: [CREATOR]}\nservices:\n- name: a\n"
    b"  image_name: i\n  mrenclaves: ["
    + b"0b"
    * 32
    + b"]\n  command: python3 '/a b'\n  environment: {A: 1, B: '~'}\n  pwd: /\n"
    b"  fspf_key: " + b"12" * 32 + b"\n  fspf_tag: " + b"12" * 16 + b"\n  fspf_path: /f\nimages:\n- name: i\n  volumes: []\n"
    b"secrets: [{name: s, kind: ascii, size: 8}]\nsecurity: {attestation: {tolerate: [debug-mode], ignore_advisories: '*'}}\n"
)
TARGETS = {
    "elf": Target(run=run_elf, seeds=libraries),
    "sconified": Target(run=lambda data: read_sconified(stored(data, "any")) and None, seeds=lambda: [sconified()]),
    "section-writer": Target(run=run_write_sconified, seeds=lambda: libraries()[1:2]),
    "layer": Target(run=run_layer, seeds=layers),
    "compressed": Target(run=run_compressed, seeds=lambda: [pack(layers()[1]) for pack in (gzip.compress, zstandard.compress)]),
    "manifest": Target(run=run_manifest, seeds=lambda: vectors("manifest", "body")),
    "stored-manifest": Target(run=run_stored_manifest, seeds=lambda: vectors("manifest", "stored")),
    "tree": Target(run=run_tree, seeds=trees),
    "index": Target(run=run_index, seeds=indexes),
    "section": Target(run=run_section, seeds=embedded),
    "oci-archive": Target(run=lambda data: read_image("oci-archive", data), seeds=lambda: [oci_archive()]),
    "docker-archive": Target(
        run=lambda data: read_image("docker-archive", data), seeds=lambda: [tar_of(docker_members(config()))]
    ),
    "config": Target(run=run_config, seeds=lambda: [config()]),
    "docker-manifest": Target(run=run_docker_manifest, seeds=lambda: [docker_members(config())["manifest.json"]]),
    "oci-index": Target(run=run_oci_index, seeds=lambda: [layout(config(), layers()[0])["index.json"]]),
    "oci-manifest": Target(run=run_oci_manifest, seeds=manifests),
    "sigstruct": Target(run=run_sigstruct, seeds=lambda: vectors("sigstruct", "sigstruct")),
    "measured-config": Target(run=run_measured_config, seeds=lambda: vectors("measured_config", "encoded")),
    "project": Target(run=run_project, seeds=lambda: [PROJECT]),
    "session": Target(run=run_session, seeds=lambda: [SESSION]),
    "frame": Target(run=run_frame, seeds=lambda: [encode_frame({"type": "config", "quote": "00" * 4})[4:]]),
    "record": Target(run=run_record, seeds=lambda: [record()]),
    "quote": Target(run=run_quote, seeds=quotes),
    "reference": Target(run=run_reference, seeds=lambda: [b"localhost:5000/a/b-c:1.0@sha256:" + b"0" * 64, b"alpine"]),
}
