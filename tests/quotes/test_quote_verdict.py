"""Verdicts over quotes: both verifiers, against each other and against every way to be wrong."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace
from quotes.quote_support import (
    DATA,
    DEBUG_FLAGS,
    NOW,
    PRODUCTION_FLAGS,
    crl,
    report,
    with_configuration,
    with_level,
    with_qe_identity,
    with_tcb_info,
)

from sconify_tasks.sgx.collateral import parse_collateral
from sconify_tasks.sgx.debug_quote import verify_debug_quote
from sconify_tasks.sgx.platform import _raw_public, _sign, new_platform
from sconify_tasks.sgx.quote import INIT, MODE64BIT, QuoteError, parse_quote
from sconify_tasks.sgx.verify import QuotePolicy, load_roots, verify_quote

DEBUG_OK = QuotePolicy(allow_debug=True)
SIGNED_AND_FIXED = 1046


@pytest.fixture(scope="module")
def platform():
    return new_platform(NOW)


@pytest.fixture(scope="module")
def stranger():
    return new_platform(NOW)


@pytest.fixture(scope="module")
def collateral(platform):
    return platform.collateral(NOW)


def refusal(quote, collateral, platform, policy=DEBUG_OK, now=NOW):
    with pytest.raises(QuoteError) as refused:
        verify_quote(quote, collateral, (platform.root_der,), now, policy)
    return refused.value


@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
def test_a_genuine_quote_is_verified_and_its_report_is_handed_over(platform, collateral, flags):
    verified = verify_quote(platform.quote(report(flags)), collateral, (platform.root_der,), NOW, DEBUG_OK)
    assert (verified.report.mr_enclave, verified.report.flags) == (b"\xaa" * 32, flags)
    assert (verified.verdict.status, verified.verdict.advisories, verified.simulated) == ("UpToDate", (), True)


@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
def test_without_tolerance_a_debug_or_simulated_quote_is_refused_with_the_option_to_use(platform, collateral, flags):
    error = refusal(platform.quote(report(flags)), collateral, platform, QuotePolicy())
    assert error.code == "debug"
    assert "SIMULATED" in error.message
    assert "--allow-debug-mode" in error.hint


def test_a_real_production_quote_gets_the_same_verdict_from_both_verifiers():
    quote = (DATA / "intel_sample.quote").read_bytes()
    collateral = parse_collateral((DATA / "intel_sample_collateral.json").read_bytes())
    root = (DATA / "intel_root.der").read_bytes()
    now = datetime(2025, 6, 28, tzinfo=UTC)
    policy = QuotePolicy(
        tolerate=frozenset({"insecure-configuration", "software-hardening-needed"}), ignore_advisories=frozenset("*")
    )
    verified = verify_quote(quote, collateral, (root,), now, policy)
    assert verified.verdict == verify_debug_quote(parse_quote(quote), collateral, root, now)
    assert verified.verdict.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert not verified.simulated
    with pytest.raises(QuoteError, match="does not tolerate insecure-configuration") as refused:
        verify_quote(quote, collateral, (root,), now, QuotePolicy())
    assert refused.value.code == "tcb"
    with pytest.raises(QuoteError, match="INTEL-SA-00289, INTEL-SA-00615"):
        verify_quote(quote, collateral, (root,), now, replace(policy, ignore_advisories=frozenset()))


@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
def test_every_flipped_byte_of_the_first_1046_is_refused(platform, collateral, flags):
    quote = platform.quote(report(flags))
    step = 1 if flags == DEBUG_FLAGS else 7  # the debug verifier is ours: every byte of it
    for offset in range(0, SIGNED_AND_FIXED, step):
        damaged = quote[:offset] + bytes([quote[offset] ^ 0x10]) + quote[offset + 1 :]
        with pytest.raises(QuoteError):
            verify_quote(damaged, collateral, (platform.root_der,), NOW, DEBUG_OK)


def test_a_chain_wrapped_in_other_bytes_still_verifies_so_a_quotes_hash_identifies_nothing(platform, collateral):
    quote = parse_quote(platform.quote(report()))
    rewrapped = replace(quote, pck_chain=quote.pck_chain.replace(b"-----\n-----", b"-----\n\n-----"))
    assert rewrapped.to_bytes() != quote.to_bytes()
    verified = verify_quote(rewrapped.to_bytes(), collateral, (platform.root_der,), NOW, DEBUG_OK)
    assert verified.report == quote.report


def test_a_root_that_was_not_added_is_named_and_refused(platform, stranger):
    error = refusal(stranger.quote(report()), stranger.collateral(NOW), platform)
    assert error.code == "untrusted-root"
    assert "SIMULATED SGX Root CA" in error.message


def test_a_trusted_root_pasted_over_a_strangers_chain_does_not_help(platform, stranger, collateral):
    quote = parse_quote(stranger.quote(report()))
    forged = replace(quote, pck_chain=stranger._chain("pck", "pck-ca").encode() + platform._chain("root").encode())
    assert refusal(forged.to_bytes(), collateral, platform).code in {"invalid", "collateral"}


def test_collateral_of_another_manufacturer_is_refused(platform, stranger):
    assert refusal(platform.quote(report()), stranger.collateral(NOW), platform).code == "invalid"


def revocations(platform):
    return {
        "revoked PCK": {"pck_crl": crl(platform, "pck-ca", ("pck",))},
        "revoked PCK CA": {"root_ca_crl": crl(platform, "root", ("pck-ca",))},
        "revoked TCB signer": {"root_ca_crl": crl(platform, "root", ("tcb",))},
        "expired PCK CRL": {"pck_crl": crl(platform, "pck-ca", until=timedelta(hours=-1))},
        "expired root CRL": {"root_ca_crl": crl(platform, "root", until=timedelta(hours=-1))},
        "future CRL": {"pck_crl": crl(platform, "pck-ca", since=timedelta(days=1))},
        "CRL signed by another key": {"pck_crl": crl(platform, "pck-ca", signer="tcb")},
        "CRLs exchanged": {"pck_crl": crl(platform, "root"), "root_ca_crl": crl(platform, "pck-ca")},
        "no DER": {"pck_crl": b"\x30\x80garbage"},
        "empty": {"root_ca_crl": b""},
    }


def damage(platform, collateral):
    month = timedelta(days=40)
    later, earlier = ((NOW + sign * month).strftime("%Y-%m-%dT%H:%M:%SZ") for sign in (1, -1))
    low = {"tcb": {"sgxtcbcomponents": [{"svn": 200}] * 16, "pcesvn": 1}, "tcbDate": earlier, "tcbStatus": "UpToDate"}
    return {
        "TCB info signature": replace(collateral, tcb_info_signature=bytes(64)),
        "TCB info signature too short": replace(collateral, tcb_info_signature=b"\1" * 63),
        "TCB info text": replace(collateral, tcb_info=collateral.tcb_info.replace("UpToDate", "UpToDATE")),
        "TCB info expired": with_tcb_info(platform, collateral, nextUpdate=earlier),
        "TCB info of the future": with_tcb_info(platform, collateral, issueDate=later),
        "TCB info of an older version": with_tcb_info(platform, collateral, version=2),
        "TCB info for TDX": with_tcb_info(platform, collateral, id="TDX"),
        "TCB info for another FMSPC": with_tcb_info(platform, collateral, fmspc="00906ED50000"),
        "TCB info for another PCE": with_tcb_info(platform, collateral, pceId="0001"),
        "no TCB level": with_tcb_info(platform, collateral, tcbLevels=[]),
        "platform below every level": with_tcb_info(platform, collateral, tcbLevels=[low]),
        "levels that can't be read": with_tcb_info(platform, collateral, tcbLevels=[{"tcb": 7}]),
        "revoked level": with_level(platform, collateral, "Revoked"),
        "unknown status": with_level(platform, collateral, "Excellent"),
        "not JSON": replace(collateral, tcb_info="["),
        "deep JSON": replace(collateral, tcb_info="[" * 100_000),
        "QE identity signature": replace(collateral, qe_identity_signature=bytes(64)),
        "QE identity expired": with_qe_identity(platform, collateral, nextUpdate=earlier),
        "QE identity of another enclave": with_qe_identity(platform, collateral, id="TD_QE"),
        "QE identity of another signer": with_qe_identity(platform, collateral, mrsigner="00" * 32),
        "QE identity of another product": with_qe_identity(platform, collateral, isvprodid=2),
        "QE identity with other attributes": with_qe_identity(platform, collateral, attributes="11" + "00" * 15),
        "QE identity with other MISCSELECT": with_qe_identity(platform, collateral, miscselect="01000000"),
        "QE below every level": with_qe_identity(
            platform, collateral, tcbLevels=[{"tcb": {"isvsvn": 9}, "tcbDate": earlier, "tcbStatus": "UpToDate"}]
        ),
        "chain of one": replace(collateral, tcb_info_issuer_chain=platform._chain("tcb")),
        "chain without end": replace(collateral, qe_identity_issuer_chain=platform._chain("tcb", "pck-ca")),
        "no chain": replace(collateral, tcb_info_issuer_chain=""),
        "CA signs TCB info": replace(collateral, tcb_info_issuer_chain=platform._chain("pck-ca", "root")),
    }


CASES = [*revocations(new_platform(NOW)), *damage(new_platform(NOW), new_platform(NOW).collateral(NOW))]


# The library builds its own path to the trusted root, so it needs no complete chain. Ours does.
ACCEPTED_BY_THE_LIBRARY = {"chain of one", "chain without end"}


@pytest.mark.parametrize(
    ("case", "flags"),
    [(case, DEBUG_FLAGS) for case in CASES]
    + [(case, PRODUCTION_FLAGS) for case in CASES if case not in ACCEPTED_BY_THE_LIBRARY],
)
def test_damaged_collateral_is_refused_on_both_paths(platform, collateral, case, flags):
    cases = {name: replace(collateral, **fields) for name, fields in revocations(platform).items()}
    damaged = (cases | damage(platform, collateral))[case]
    assert refusal(platform.quote(report(flags)), damaged, platform).code in {"invalid", "collateral", "tcb"}


@pytest.mark.parametrize("case", CASES)
def test_our_verifier_is_never_laxer_than_the_library(platform, collateral, case):
    cases = {name: replace(collateral, **fields) for name, fields in revocations(platform).items()}
    damaged = (cases | damage(platform, collateral))[case]
    quote = platform.quote(report(PRODUCTION_FLAGS))
    seconds = int(NOW.timestamp())
    try:
        bundle = dcap_qvl.QuoteCollateralV3.from_json(damaged.to_json())
        dcap_qvl.verify_with_root_ca(quote, bundle, platform.root_der, seconds)
        accepted = True
    except ValueError:
        accepted = False
    try:
        verify_debug_quote(parse_quote(quote), damaged, platform.root_der, NOW)
        ours = True
    except QuoteError:
        ours = False
    assert accepted or not ours or case == "revoked level"  # which our verdict names, and the policy refuses


@pytest.mark.parametrize("years", [-1, 60])
def test_certificates_outside_their_dates_are_refused(platform, years):
    now = NOW + timedelta(days=365 * years)
    assert refusal(platform.quote(report()), platform.collateral(now), platform, now=now).code in {"invalid", "collateral"}


@pytest.mark.parametrize("flags", [MODE64BIT, DEBUG_FLAGS & ~INIT, INIT, 0])
def test_an_enclave_that_was_never_initialised_is_refused(platform, collateral, flags):
    assert refusal(platform.quote(report(flags)), collateral, platform).code == "not-initialised"


def test_an_attestation_key_that_the_quoting_enclave_did_not_report_is_refused(platform, collateral):
    key = ec.generate_private_key(ec.SECP256R1())
    quote = replace(parse_quote(platform.quote(report())), attestation_key=_raw_public(key))
    signed = replace(quote, signature=_sign(key, quote.signed_bytes))
    assert "attestation key" in refusal(signed.to_bytes(), collateral, platform).message


def test_a_debug_quoting_enclave_is_refused(platform, collateral):
    quote = parse_quote(platform.quote(report()))
    qe_report = replace(quote.qe_report, flags=DEBUG_FLAGS)
    signed = replace(quote, qe_report=qe_report, qe_signature=_sign(platform.keys["pck"], qe_report.to_bytes()))
    assert "DEBUG" in refusal(signed.to_bytes(), collateral, platform).message


STATUSES = {
    "SWHardeningNeeded": {"software-hardening-needed"},
    "ConfigurationNeeded": {"insecure-configuration"},
    "ConfigurationAndSWHardeningNeeded": {"insecure-configuration", "software-hardening-needed"},
    "OutOfDate": {"outdated-tcb"},
    "OutOfDateConfigurationNeeded": {"outdated-tcb", "insecure-configuration"},
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
def test_a_tcb_status_passes_with_exactly_the_tolerations_that_it_needs(platform, collateral, status, flags):
    quote, level = platform.quote(report(flags)), with_level(platform, collateral, status)
    needed = STATUSES[status]
    policy = QuotePolicy(allow_debug=True, tolerate=frozenset(needed))
    assert verify_quote(quote, level, (platform.root_der,), NOW, policy).verdict.status == status
    for missing in needed:
        assert refusal(quote, level, platform, replace(policy, tolerate=frozenset(needed - {missing}))).code == "tcb"


@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
def test_an_advisory_passes_only_when_it_is_ignored_by_name(platform, collateral, flags):
    quote, level = platform.quote(report(flags)), with_level(platform, collateral, "UpToDate", ("INTEL-SA-00615",))
    assert "INTEL-SA-00615" in refusal(quote, level, platform).message
    wrong = QuotePolicy(allow_debug=True, ignore_advisories=frozenset({"INTEL-SA-00001"}))
    assert refusal(quote, level, platform, wrong).code == "tcb"
    for ignored in ("INTEL-SA-00615", "*"):
        policy = replace(wrong, ignore_advisories=frozenset({ignored}))
        assert verify_quote(quote, level, (platform.root_der,), NOW, policy).verdict.advisories == ("INTEL-SA-00615",)


@pytest.mark.parametrize("flags", [PRODUCTION_FLAGS, DEBUG_FLAGS])
@pytest.mark.parametrize(
    ("flag", "toleration"),
    [("dynamic", None), ("cached", None), ("smt", "hyperthreading"), (None, "")],
)
def test_a_platforms_configuration_passes_only_where_it_is_tolerated(platform, collateral, flags, flag, toleration):
    configured = with_configuration(platform, **{name: name == flag for name in ("dynamic", "cached", "smt")})
    quote = configured.quote(report(flags))
    all_tolerated = QuotePolicy(allow_debug=True, tolerate=frozenset({"hyperthreading", "outdated-tcb"}))
    if flag is not None:
        assert refusal(quote, collateral, platform, DEBUG_OK if toleration else all_tolerated).code == "tcb"
    if toleration is not None:
        verify_quote(quote, collateral, (platform.root_der,), NOW, all_tolerated)


def test_the_worse_of_platform_and_quoting_enclave_counts(platform, collateral):
    level = {
        "tcb": {"isvsvn": 1},
        "tcbDate": "2026-01-01T00:00:00Z",
        "tcbStatus": "OutOfDate",
        "advisoryIDs": ["INTEL-SA-00615"],
    }
    old_enclave = with_qe_identity(platform, collateral, tcbLevels=[level])
    for flags in (PRODUCTION_FLAGS, DEBUG_FLAGS):
        assert "OutOfDate" in refusal(platform.quote(report(flags)), old_enclave, platform).message


def test_the_highest_level_that_the_platform_reaches_counts_whatever_their_order(platform, collateral):
    own = json.loads(collateral.tcb_info)["tcbLevels"][0]
    lower = {**own, "tcb": {"sgxtcbcomponents": [{"svn": 0}] * 16, "pcesvn": 0}, "tcbStatus": "OutOfDate"}
    turned = with_tcb_info(platform, collateral, tcbLevels=[lower, own])
    for flags in (PRODUCTION_FLAGS, DEBUG_FLAGS):
        verified = verify_quote(platform.quote(report(flags)), turned, (platform.root_der,), NOW, DEBUG_OK)
        assert verified.verdict.status == "UpToDate"


def test_roots_are_read_from_pem_and_what_is_no_root_is_refused(platform):
    assert load_roots(platform.root_pem) == (platform.root_der,)
    for text in ("", "garbage", platform._chain("pck-ca"), base64.b64encode(platform.root_der).decode()):
        with pytest.raises(Exception, match="not a root certificate"):
            load_roots(text)
