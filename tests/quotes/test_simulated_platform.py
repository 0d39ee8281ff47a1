"""The simulated platform's state: made once, private, loaded again, marked."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from quotes.quote_support import NOW, report

from sconify_tasks.errors import StoreError, UsageError
from sconify_tasks.sgx.collateral import parse_collateral
from sconify_tasks.sgx.platform import open_platform, parse_platform
from sconify_tasks.sgx.verify import QuotePolicy, verify_quote


def test_a_platform_is_made_once_in_private_files_and_loaded_again(tmp_path):
    folder = tmp_path / "state"
    first = open_platform(folder, NOW)
    again = open_platform(folder, NOW + timedelta(days=400))
    assert again.root_der == first.root_der
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_quotes_of_a_loaded_platform_verify_a_year_later(tmp_path):
    open_platform(tmp_path, NOW)
    later = NOW + timedelta(days=365)
    platform = open_platform(tmp_path, later)
    verify_quote(
        platform.quote(report()), platform.collateral(later), (platform.root_der,), later, QuotePolicy(allow_debug=True)
    )


def test_of_many_that_race_all_get_the_same_platform(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        roots = set(pool.map(lambda _: open_platform(tmp_path, NOW).root_der, range(8)))
    assert len(roots) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_every_certificate_says_simulated(tmp_path):
    platform = open_platform(tmp_path, NOW)
    assert all("SIMULATED" in certificate.subject.rfc4514_string() for certificate in platform.certificates.values())


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b'{"v": 1, "keys": {}, "certificates": {}}', b'{"v": 2}'])
def test_a_damaged_state_file_is_named_and_not_replaced(tmp_path, damage):
    open_platform(tmp_path, NOW)
    path = tmp_path / "platform.json"
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"platform\.json is damaged"):
        open_platform(tmp_path, NOW)
    assert path.read_bytes() == damage


def test_a_state_file_with_a_key_of_another_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    state = json.loads(open_platform(tmp_path, NOW).to_json())
    state["keys"]["pck"] = (
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )
    with pytest.raises(ValueError, match="not an EC key"):
        parse_platform(json.dumps(state).encode())


def test_a_state_file_that_others_may_read_is_refused(tmp_path):
    open_platform(tmp_path, NOW)
    (tmp_path / "platform.json").chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        open_platform(tmp_path, NOW)


def test_collateral_survives_its_json_form(tmp_path):
    collateral = open_platform(tmp_path, NOW).collateral(NOW)
    assert parse_collateral(collateral.to_json()) == collateral


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"root_ca_crl": 7}', '{"tcb_info": "' + "x" * (1 << 20) + '"}']
)
def test_what_is_no_collateral_is_refused(text):
    with pytest.raises(UsageError, match="collateral"):
        parse_collateral(text)
