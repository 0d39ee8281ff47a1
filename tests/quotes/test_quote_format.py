"""The quote's bytes: strict reading, and reading back what was written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quotes.quote_support import DATA, report

from sconify_tasks.sgx.quote import FIXED_LENGTH, Header, Quote, QuoteError, ReportBody, parse_quote, parse_report

SAMPLE = (DATA / "intel_sample.quote").read_bytes()

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))


def fixed(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


reports = st.builds(
    ReportBody,
    mr_enclave=fixed(32),
    mr_signer=fixed(32),
    report_data=fixed(64),
    flags=u64,
    xfrm=u64,
    isv_prod_id=u16,
    isv_svn=u16,
    config_svn=u16,
    config_id=fixed(64),
    isv_family_id=fixed(16),
    isv_ext_prod_id=fixed(16),
    cpu_svn=fixed(16),
    misc_select=u32,
)
quotes = st.builds(
    Quote,
    header=st.builds(Header, qe_svn=u16, pce_svn=u16, user_data=fixed(20)),
    report=reports,
    signature=fixed(64),
    attestation_key=fixed(64),
    qe_report=reports,
    qe_signature=fixed(64),
    auth_data=fixed(32),
    pck_chain=st.binary(max_size=300),
)


def test_a_real_quote_is_read_and_written_back_unchanged():
    assert parse_quote(SAMPLE).to_bytes() == SAMPLE


def test_the_fields_of_a_real_quote_are_where_the_manufacturer_puts_them():
    quote = parse_quote(SAMPLE)
    assert quote.report.report_data.startswith(b"Hello, world!")
    assert quote.report.mr_enclave.hex() == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
    assert quote.qe_report.mr_signer.hex() == "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"
    assert quote.pck_chain.startswith(b"-----BEGIN CERTIFICATE-----")


@given(quotes)
@settings(max_examples=50)
def test_every_quote_survives_the_round_trip(quote):
    assert parse_quote(quote.to_bytes()) == quote


@given(st.integers(0, len(SAMPLE) - 1))
@settings(max_examples=50)
def test_a_truncated_quote_is_malformed(length):
    with pytest.raises(QuoteError) as refused:
        parse_quote(SAMPLE[:length])
    assert refused.value.code == "malformed"


@given(st.binary(max_size=2000))
def test_no_bytes_make_the_parser_crash(data):
    with pytest.raises(QuoteError):
        parse_quote(data)


@given(st.binary(min_size=FIXED_LENGTH, max_size=FIXED_LENGTH + 40), st.booleans())
def test_no_bytes_behind_a_right_header_make_the_parser_crash(data, lengths_fit):
    data = SAMPLE[:48] + data[48:]
    if lengths_fit:
        data = data[:432] + struct.pack("<I", len(data) - 436) + data[436:]
    with pytest.raises(QuoteError):
        parse_quote(data)


def test_a_trailing_byte_is_refused():
    with pytest.raises(QuoteError, match="signature data"):
        parse_quote(SAMPLE + b"\0")


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, b"\x04\x00", "version 4"),
        (2, b"\x03\x00", "key type 3"),
        (4, b"\x81\x00\x00\x00", "TEE type"),
        (12, b"\x00", "vendor"),
        (432, b"\xff\xff\xff\xff", "signature data"),
        (1012, b"\x21\x00", "authentication data"),
        (1046, b"\x06\x00", "type 6"),
        (1048, b"\x00\x00\x00\x00", "PCK chain"),
        (48 + 20, b"\x01", "reserved"),
        (48 + 262, b"\x01", "reserved"),
    ],
)
def test_each_wrong_field_has_its_own_message(offset, value, why):
    damaged = SAMPLE[:offset] + value + SAMPLE[offset + len(value) :]
    with pytest.raises(QuoteError, match=why):
        parse_quote(damaged)


def test_fields_of_a_wrong_length_are_never_padded_or_cut():
    with pytest.raises(ValueError, match="expected 32"):
        report(mr_enclave=b"short").to_bytes()


def test_a_report_with_reserved_bytes_set_is_refused():
    raw = bytearray(report().to_bytes())
    raw[100] = 1
    with pytest.raises(QuoteError, match="reserved"):
        parse_report(bytes(raw))
