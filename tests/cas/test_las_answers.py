"""The LAS: what it signs, how it marks it, what it refuses."""

from __future__ import annotations

import base64

import pytest
from cas.cas_support import MRENCLAVE, las_request, sigstruct
from quotes.quote_support import NOW
from sgx import sdm

from sconify_tasks.cas.frames import RefusedError
from sconify_tasks.cas.las import answer_quote
from sconify_tasks.sgx.claims import attributes_of
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.sgx.platform import new_platform
from sconify_tasks.sgx.quote import parse_quote
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct, mrsigner
from sconify_tasks.sgx.verify import QuotePolicy, verify_quote


@pytest.fixture(scope="module")
def platform():
    return new_platform(NOW)


def ask(platform, **changes):
    request = las_request(b"\x05" * 64) | changes
    del request["v"]
    return parse_quote(base64.b64decode(answer_quote(platform, request)["quote"])).report


def test_the_report_says_what_the_sigstruct_says_and_that_it_is_self_reported(platform):
    signer = debug_signer()
    signed = build_sigstruct(MrEnclave(MRENCLAVE), signer, debug=True, isv_prod_id=7, isv_svn=3).hex()
    report = ask(platform, sigstruct=signed)
    assert report.mr_enclave.hex() == MRENCLAVE
    assert report.mr_signer.hex() == mrsigner(signer.modulus)
    assert (report.isv_prod_id, report.isv_svn) == (7, 3)
    assert report.report_data == b"\x05" * 64
    assert report.isv_family_id == b"SELF-REPORTED\0\0\0"
    assert report.config_id.startswith(b"SIMULATED")


@pytest.mark.parametrize("name", ["provision-key", "einittoken-key", "avx", "avx512", "pkru", "amx"])
def test_the_enclave_of_the_report_is_one_that_its_sigstruct_admits(name, platform):
    signed = build_sigstruct(MrEnclave(MRENCLAVE), debug_signer(), debug=True, attributes=attributes_of([name]))
    plain = build_sigstruct(MrEnclave(MRENCLAVE), debug_signer(), debug=True)
    report = ask(platform, sigstruct=signed.hex())
    assert sdm.admits(signed, report.flags, report.xfrm)
    before = ask(platform, sigstruct=plain.hex())
    assert sdm.admits(plain, before.flags, before.xfrm)
    assert not sdm.admits(signed, before.flags, before.xfrm)


def test_debug_is_set_even_for_a_production_signature(platform):
    signed = build_sigstruct(MrEnclave(MRENCLAVE), debug_signer(), debug=False).hex()
    assert ask(platform, sigstruct=signed).debug


def test_its_quotes_verify(platform):
    request = las_request(b"\x05" * 64)
    del request["v"]
    quote = base64.b64decode(answer_quote(platform, request)["quote"])
    verify_quote(quote, platform.collateral(NOW), (platform.root_der,), NOW, QuotePolicy(allow_debug=True))


def broken(hex_text: str, at: int) -> str:
    raw = bytearray(bytes.fromhex(hex_text))
    raw[at] ^= 1
    return raw.hex()


@pytest.mark.parametrize(
    "changes",
    [
        {"sigstruct": broken(sigstruct(), 600)},  # signature
        {"sigstruct": broken(sigstruct(), 960)},  # ENCLAVEHASH
        {"sigstruct": broken(sigstruct(), 1040)},  # Q1
        {"sigstruct": sigstruct("cd" * 32)},
        {"sigstruct": "00" * 1808},
        {"sigstruct": sigstruct()[:-2]},
        {"sigstruct": None},
        {"mrenclave": MRENCLAVE.upper()},
        {"report_data": "05" * 63},
        {"type": "config"},
        {"extra": 1},
    ],
)
def test_what_does_not_fit_together_is_refused(platform, changes):
    with pytest.raises(RefusedError) as refused:
        ask(platform, **changes)
    assert refused.value.code == "bad-request"
