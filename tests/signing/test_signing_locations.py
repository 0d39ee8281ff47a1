"""How a signing key is named: what is understood, what is refused, and what is never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.project import load_project
from sconify_tasks.signing.location import Command, PemFile, Token, parse_location, relocate


@pytest.mark.parametrize("text", ["key.pem", "/keys/key.pem", "file:/keys/key.pem", "./a:b.pem"])
def test_a_path_is_a_pem_file(text):
    assert parse_location(text) == PemFile(path=Path(text.removeprefix("file:")))


def test_a_token_is_named_as_rfc_7512_says():
    uri = "pkcs11:token=My%20token;id=%00%a1;object=k%3by?module-path=/usr/lib/m.so&pin-source=file:/run/pin"
    found = parse_location(uri)
    assert isinstance(found, Token)
    assert dict(found.attributes) == {"token": "My token", "object": "k;y"}
    assert (found.id, found.module, found.pin_source) == (b"\0\xa1", "/usr/lib/m.so", "/run/pin")


def test_a_command_is_split_into_words_and_no_shell_sees_it():
    assert parse_location("command:/bin/sign --key 'a b' ; rm") == Command(words=("/bin/sign", "--key", "a b", ";", "rm"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "a\nb", "file:", "https://example/key", "awskms:key"),
        *("command:", "command:'x", "pkcs11:", "pkcs11:token=a", "pkcs11:object=a;object=b", "pkcs11:object"),
        *(
            "pkcs11:object=a;colour=red",
            "pkcs11:object=%zz",
            "pkcs11:object=%ff",
            "pkcs11:object=a%00",
            "pkcs11:object=a;type=cert",
        ),
    ],
)
def test_what_names_no_key_is_refused_with_what_would(text):
    with pytest.raises(ValueError, match=r"."):
        parse_location(text)


@pytest.mark.parametrize(
    "uri", ["pkcs11:object=a?pin-value=738164", "pkcs11:object=a;pin-value=738164", "pkcs11:object=a?pin=738164"]
)
def test_a_pin_in_the_uri_is_refused_and_not_repeated(uri):
    with pytest.raises(ValueError, match="passphrase-file") as refusal:
        parse_location(uri)
    assert "738164" not in str(refusal.value)


@given(st.text(max_size=60))
def test_any_text_is_a_location_or_a_value_error(text):
    for prefix in ("", "pkcs11:", "command:"):
        try:
            parse_location(prefix + text)
        except ValueError:
            continue


PROJECT = "version: 1\nproject: p\nimages:\n  a:\n    from: a\n    to: b\n    binary: /bin/x\n    scone-signer: {}\n"


def test_in_a_project_file_a_key_file_is_found_beside_it_and_a_token_is_the_machines(tmp_path):
    for text, meant in (("keys/a.pem", str(tmp_path / "keys/a.pem")), ("pkcs11:object=a", "pkcs11:object=a")):
        (tmp_path / "sconify.yaml").write_text(PROJECT.format(text))
        assert load_project(tmp_path / "sconify.yaml").images["a"]["scone-signer"] == meant


@pytest.mark.parametrize("text", ["command:/bin/sh -c evil", "pkcs11:object=a?module-path=/tmp/evil.so"])
def test_a_project_file_can_not_choose_what_runs_on_the_machine(text, tmp_path):
    (tmp_path / "sconify.yaml").write_text(PROJECT.format(f"'{text}'"))
    with pytest.raises(UsageError, match=r"yaml:8: images.a.scone-signer: this value is not allowed") as refusal:
        load_project(tmp_path / "sconify.yaml")
    assert "SCONIFY_SIGNER" in refusal.value.hint
    assert relocate("pkcs11:object=a", tmp_path) == "pkcs11:object=a"


@pytest.mark.parametrize("text", ["20261301", "2026-01-01", "1", "00000000", "19691231", "202601011"])
def test_a_signing_date_is_a_date(text):
    with pytest.raises(ValueError, match="YYYYMMDD"):
        BY_NAME["signing-date"].kind.value(text)
    assert BY_NAME["signing-date"].kind.value("20240229") == 20240229
