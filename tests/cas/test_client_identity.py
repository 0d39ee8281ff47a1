"""Client identities: files, the config file of the documented tools, and what is neither."""

from __future__ import annotations

import json
import subprocess

import pytest

from sconify_tasks.cas.bridge import bridge_address
from sconify_tasks.cas.identity import certificate_spki_hash, default_identity, load_identity, new_identity, parse_identity
from sconify_tasks.errors import StoreError, UsageError
from sconify_tasks.sgx.private_file import read_private


@pytest.fixture
def config(tmp_path):
    return tmp_path / "home" / ".cas" / "config.json"


def test_an_identity_is_made_once_and_kept_in_a_private_file(config):
    first = default_identity(config)
    assert default_identity(config) == first
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(config.read_text())["identity"] == first.pem


def test_other_keys_of_the_config_file_stay(config):
    config.parent.mkdir(parents=True)
    config.write_text('{"cas": {"trusted": ["x"]}}')
    config.chmod(0o600)
    identity = default_identity(config)
    assert json.loads(config.read_text()) == {"cas": {"trusted": ["x"]}, "identity": identity.pem}
    assert config.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"identity": 7}', "[" * 100_000])
def test_a_damaged_config_file_is_named_and_left_as_it_is(config, content):
    config.parent.mkdir(parents=True)
    config.write_text(content)
    config.chmod(0o600)
    with pytest.raises(StoreError, match=r"config\.json"):
        default_identity(config)
    assert config.read_text() == content


def test_a_config_file_that_others_may_read_is_refused(config):
    default_identity(config)
    config.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        default_identity(config)


def test_the_documented_openssl_commands_make_an_identity(tmp_path):
    key, certificate, identity = (tmp_path / name for name in ("key.pem", "crt.pem", "identity.pem"))
    make_key = ["openssl", "genpkey", "-out", key, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(make_key, check=True, capture_output=True)
    make = ["openssl", "req", "-x509", "-key", key, "-out", certificate, "-days", "31", "-sha256", "-subj", "/CN=Test"]
    subprocess.run(make, check=True, capture_output=True)
    identity.write_bytes(key.read_bytes() + certificate.read_bytes())
    loaded = load_identity(identity)
    public = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    import hashlib

    assert loaded.spki_hash == hashlib.sha256(public).hexdigest()


def test_the_certificate_does_not_matter_only_its_key(tmp_path):
    one, two = new_identity(), new_identity()
    assert one.spki_hash != two.spki_hash
    assert parse_identity(one.pem, name="one").spki_hash == one.spki_hash


def test_what_is_no_identity_is_explained(tmp_path):
    one, two = new_identity().pem, new_identity().pem
    end = "-----END PRIVATE KEY-----\n"
    cases = {
        "": "is not an identity",
        "garbage": "is not an identity",
        one.split(end)[0] + end: "is not an identity",
        one.split(end)[1]: "is not an identity",
        one.split(end)[0] + end + two.split(end)[1]: "not of the private key",
        one + "é": "is not an identity",
    }
    for text, why in cases.items():
        with pytest.raises(UsageError, match=why) as refused:
            parse_identity(text, name="file")
        assert "openssl" in refused.value.hint
    with pytest.raises(UsageError, match="can't be read"):
        load_identity(tmp_path / "nothing")


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"\xff" * 100])
def test_what_is_no_certificate_has_no_hash(der):
    with pytest.raises(ValueError):  # noqa: PT011
        certificate_spki_hash(der)


def test_a_private_file_that_is_too_large_is_not_read_whole(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="larger than 99"):
        read_private(path, limit=99)


def test_the_address_of_an_interface_is_found_and_of_none_is_none():
    assert bridge_address("lo") == "127.0.0.1"
    assert bridge_address("no-such-if0") is None
