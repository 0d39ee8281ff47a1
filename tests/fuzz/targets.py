"""Every reader of bytes that others wrote, as a function that raises documented errors only, and valid input for each.

`SconifyError` is what a reader may raise; whatever else comes out is a bug, and so is an accepted input of a canonical
format that its writer would have spelled otherwise.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zstandard
from fuzz.binaries import libraries, run_elf, run_write_sconified, sconified
from fuzz.images import (
    config,
    docker_members,
    layers,
    layout,
    manifests,
    oci_archive,
    read_image,
    run_compressed,
    run_config,
    run_docker_manifest,
    run_layer,
    run_oci_index,
    run_oci_manifest,
    tar_of,
)
from fuzz.scratch import TESTS, stored, vectors
from msgspec.structs import replace
from vectors.pattern import pattern

from sconify_cache.digest import Digest
from sconify_cache.keys import content_id
from sconify_cache.record import Record, peek, seal_record, unseal_record
from sconify_tasks.binary_fs.index import HEADER, decode_index, encode_index
from sconify_tasks.binary_fs.reading import open_section
from sconify_tasks.cas.frames import decode_body as decode_frame
from sconify_tasks.cas.frames import encode_frame, expect, hex_bytes
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.manifest import check_manifest, decode_body, encode_body, fspf_tag, open_manifest
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.fspf.tree import decode_tree, encode_tree
from sconify_tasks.image.references import parse_reference
from sconify_tasks.interpolation import Variables
from sconify_tasks.policy.parse import check_supported, parse_session
from sconify_tasks.project_file import parse_file
from sconify_tasks.sconified import read_sconified
from sconify_tasks.sgx.measured_config import decode_config
from sconify_tasks.sgx.quote import parse_quote
from sconify_tasks.sgx.sigstruct import parse_signed_data, parse_sigstruct, verify_sigstruct

KEY = bytes(range(32))


@dataclass(frozen=True, kw_only=True)
class Target:
    """`run` takes any bytes; `seeds` makes valid ones."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


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
