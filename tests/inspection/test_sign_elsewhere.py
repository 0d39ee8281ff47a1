"""sconify-sign: the key is on another machine. Only 256 bytes go there, and only a signature that verifies comes back in."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress

import pytest
from inspection.commands import run
from sgx import sdm

from sconify_tasks.image.docker import DockerSource
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.validate import validate
from sconify_tasks.sconified import read_sconified
from sconify_tasks.sgx.claims import SIGNED_SIZE
from sconify_tasks.sgx.measurement import EnclaveError
from sconify_tasks.sgx.sigstruct import mrsigner, parse_signed_data
from sconify_tasks.signing.public import load_public


@pytest.fixture
def sign(made, need, tmp_path):
    """The other machine: openssl and a key, and nothing else."""

    def signed(data, key):
        (tmp_path / "tbs").write_bytes(data)
        words = ["dgst", "-sha256", "-sign", key.pem, "-out", tmp_path / "sig", tmp_path / "tbs"]
        subprocess.run([need("openssl"), *words], check=True)
        return tmp_path / "sig"

    return signed


def command(made, *words, engine=""):
    return run("sconify-sign", *words, home=made.folder, **({"engine": engine} if engine else {}))


def binary_of(layout, tag, tmp_path):
    image = OciSource(layout, tag)
    (tmp_path / "prog").write_bytes(image.read(b"/bin/prog", limit=1 << 26))
    image.close()
    return read_sconified(tmp_path / "prog")


def test_an_image_is_signed_on_another_machine_and_differs_in_one_layer_only(made, sign, key, tmp_path):
    image, signed = f"oci:{made.layout}:small", tmp_path / "signed"
    asked = ("--enclave-attributes", "amx", "--enclave-attributes", "einittoken-key")
    data = command(made, "data", image, "--isvprodid", "9", "--isvsvn", "4", "--signing-date", "20260301", *asked).out
    assert len(data) == SIGNED_SIZE
    words = ("--signature", sign(data, key), "--key", key.public, "--data", tmp_path / "tbs", "--to", f"oci:{signed}:small")
    ended = command(made, "attach", image, *words)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.strip() == mrsigner(load_public(key.public))
    before, after = binary_of(made.layout, "small", tmp_path), binary_of(signed, "small", tmp_path)
    assert sdm.einit(after.sigstruct.raw, before.sigstruct.mrenclave) == mrsigner(load_public(key.public))
    assert (after.sigstruct.debug, after.sigstruct.isv_prod_id, after.sigstruct.isv_svn) == (False, 9, 4)
    old, new = OciSource(made.layout, "small"), OciSource(signed, "small")
    validate(signed, "small")
    assert sum(one != other for one, other in zip(old.diff_ids, new.diff_ids, strict=True)) == 1
    assert {**old.config.raw, "rootfs": None} == {**new.config.raw, "rootfs": None}
    inspected = run("sconify-inspect", "--json", f"oci:{signed}:small", home=made.folder)
    assert json.loads(inspected.stdout)["verified"] is True
    told = json.loads(inspected.stdout)["signature"]
    assert (told["attributes"], told["xfrm"]) == (["MODE64BIT", "EINITTOKEN_KEY", "AMX"], 0x60003)
    again = command(made, "data", f"oci:{signed}:small").out
    assert parse_signed_data(again).attributes == ("einittoken-key", "amx"), "they stay as they are"


def test_without_options_the_data_is_for_production_and_attach_needs_no_copy_of_it(made, sign, key, tmp_path):
    copy = made_copy(made, tmp_path)
    data = command(made, "data", copy).out
    assert parse_signed_data(data).debug is False
    assert command(made, "attach", copy, "--signature", sign(data, key), "--key", key.public).code == 0
    found = read_sconified(copy).sigstruct
    assert (found.mrsigner, found.debug) == (mrsigner(load_public(key.public)), False)
    assert copy.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in copy.parent.iterdir() if path.name.startswith(".")] == []


def made_copy(made, tmp_path):
    image = OciSource(made.layout, "small")
    copy = tmp_path / "binary"
    copy.write_bytes(image.read(b"/bin/prog", limit=1 << 26))
    copy.chmod(0o755)
    image.close()
    return copy


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("another key's signature", 4, "what the signer returned is refused"),
        ("garbage", 4, "no signature of its key"),
        ("short", 4, "no signature of its key"),
        ("other data", 4, "what the signer returned is refused"),
        ("another image's data", 4, "and this measures"),
        ("no data", 4, "has 256 bytes, not 3"),
        ("no signature file", 2, "can't be read"),
        ("private key", 2, "is a private key"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(change, code, message, made, sign, key, other_key, tmp_path):  # noqa: PLR0917
    copy = made_copy(made, tmp_path)
    before = copy.read_bytes()
    data = command(made, "data", copy).out
    signature, public, extra = sign(data, other_key if change == "another key's signature" else key), key.public, ()
    if change == "garbage":
        signature.write_bytes(b"\xff" * 384)
    if change == "short":
        signature.write_bytes(signature.read_bytes()[:-1])
    if change == "no signature file":
        signature = tmp_path / "absent"
    if change == "private key":
        public = key.pem
    if change in {"other data", "no data", "another image's data"}:
        of = f"oci:{made.folder}/other:small" if change == "another image's data" else copy
        other = command(made, "data", of, "--isvsvn", "77").out
        (tmp_path / "other").write_bytes(b"abc" if change == "no data" else other)
        extra = ("--data", tmp_path / "other")
    ended = command(made, "attach", copy, "--signature", signature, "--key", public, *extra)
    assert ended.code == code, ended.stderr
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    "words", [("--isvsvn", "65536"), ("--isvprodid", "-1"), ("--signing-date", "20261301"), ("--isvsvn", "x")]
)
def test_values_out_of_range_are_not_made_into_data(words, made):
    ended = command(made, "data", f"oci:{made.layout}:small", *words)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("position", [0, 17, 21, 41, 100, 129, 145, 161, 230, 253])
def test_data_that_was_tampered_with_on_the_way_is_refused_or_says_what_it_is(position, made):
    data = bytearray(command(made, "data", f"oci:{made.layout}:small").out)
    original = parse_signed_data(bytes(data))
    data[position] ^= 1
    with suppress(EnclaveError):
        assert parse_signed_data(bytes(data)) != original


def test_an_image_of_the_engine_is_signed_in_place(made, sign, key, engine):
    name = engine.name("signed")
    from docker import DockerClient

    from sconify_tasks.image.model import BuiltImage
    from sconify_tasks.image.scratch import ScratchSource
    from sconify_tasks.image.sink_docker import DockerSink

    source = OciSource(made.layout, "small")
    client = DockerClient(base_url=engine.host)
    with source.layer_files() as layers:
        import rfc8785

        built = BuiltImage(base_diff_ids=(), layers=layers, config=rfc8785.dumps(dict(source.config.raw)))
        DockerSink(client).deliver(built, ScratchSource(), name)
    data = command(made, "data", f"docker:{name}", engine=engine.host).out
    words = ("--signature", sign(data, key), "--key", key.public)
    ended = command(made, "attach", f"docker:{name}", *words, engine=engine.host)
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(run("sconify-inspect", "--json", name, home=made.folder, engine=engine.host).stdout)
    assert found["verified"] is True
    assert (found["mrsigner"], found["signature"]["mode"]) == (mrsigner(load_public(key.public)), "production")
    after = DockerSource(lambda: client, name)
    assert after.config.entrypoint == source.config.entrypoint
    assert after.config.env == source.config.env
    after.close()
    client.close()
