"""The committed vectors, which the runtime reads as well."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from vectors.make import pattern, render, vectors

from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.manifest import decode_body, encode_body, fspf_tag, open_manifest, seal_manifest
from sconify_tasks.fspf.names import x_name
from sconify_tasks.fspf.stream import FILE_INFO, open_stream, seal_file, sealed_size

FOLDER = Path(__file__).parent.parent / "vectors"
FILES = json.loads((FOLDER / "file.json").read_text())
MANIFESTS = json.loads((FOLDER / "manifest.json").read_text())


def named(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


def test_the_committed_vectors_are_what_the_program_writes():
    for name, vector in vectors().items():
        assert (FOLDER / name).read_text() == render(vector), f"{name}: run tests/vectors/make.py, and see what changed"


@named(FILES["cases"])
def test_a_file_is_sealed_and_opened_as_the_vector_says(case):
    key, plain = bytes.fromhex(case["fspf_key"]), pattern(case["size"])
    sealed = seal_file(key, io.BytesIO(plain))
    stored = b"".join(sealed.chunks)
    assert (sealed.salt.hex(), sealed.size, stored.hex()) == (case["salt"], case["size"], case["stored"])
    assert len(stored) == sealed_size(case["size"])
    assert x_name(key, sealed.salt) == case["x_name"]
    assert b"".join(open_stream(key, FILE_INFO, sealed.salt, case["size"], io.BytesIO(stored))) == plain


def stored_of(case):
    if "stored" in case:
        return bytes.fromhex(case["stored"])
    (base,) = (bytes.fromhex(other["stored"]) for other in FILES["cases"] if other["size"] == case["of"])
    return b"".join(bytes.fromhex(part) if isinstance(part, str) else base[part[0] : part[1]] for part in case["parts"])


@named(FILES["refused"])
def test_a_damaged_file_is_refused_for_its_own_reason(case):
    stream = open_stream(
        bytes.fromhex(case["fspf_key"]), FILE_INFO, bytes.fromhex(case["salt"]), case["size"], io.BytesIO(stored_of(case))
    )
    with pytest.raises(MalformedError) as refusal:
        list(stream)
    assert refusal.value.code == case["error"]


@named(MANIFESTS["cases"])
def test_a_manifest_is_opened_and_sealed_as_the_vector_says(case):
    key, tag, stored = (bytes.fromhex(case[name]) for name in ("fspf_key", "fspf_tag", "stored"))
    manifest = open_manifest(key, tag, stored)
    assert [region.path.hex() for region in manifest.regions.regions] == [region["path"] for region in case["regions"]]
    assert [entry.path.hex() for entry in manifest.entries] == [entry["path"] for entry in case["entries"]]
    assert encode_body(manifest).hex() == case["body"]
    assert decode_body(bytes.fromhex(case["body"])) == manifest
    assert seal_manifest(key, manifest) == stored
    assert fspf_tag(stored) == tag


@named(MANIFESTS["refused"])
def test_a_wrong_manifest_is_refused_for_its_own_reason(case):
    key, tag, stored = (bytes.fromhex(case[name]) for name in ("fspf_key", "fspf_tag", "stored"))
    with pytest.raises(MalformedError) as refusal:
        open_manifest(key, tag, stored)
    assert refusal.value.code == case["error"]
    assert refusal.value.exit_code == 4
