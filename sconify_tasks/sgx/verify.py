"""The verdict over a quote: is it genuine, of which enclave, and is its platform good enough.

`dcap-qvl` decides about production quotes, under its strict policy plus what is explicitly tolerated. It refuses every
DEBUG quote and has no switch for that, so `debug_quote` checks those, and only where debug mode is tolerated. What the
library leaves to its caller is checked here, for both. Measurements and report data are the caller's to compare: a
verified quote says who speaks, not that it is the right one.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.debug_quote import verify_debug_quote
from sconify_tasks.sgx.pck import PCK_CHAIN_LENGTH, Verdict, load_chain, pck_extension
from sconify_tasks.sgx.quote import INIT, MODE64BIT, Quote, QuoteError, ReportBody, parse_quote

ALL_ADVISORIES = "*"
SIMULATED = "SIMULATED"

# What each TCB status (PCS API v4, `tcbStatus`) needs the session to tolerate. A status that is not listed is refused.
_NEEDS: dict[str, frozenset[str]] = {
    "UpToDate": frozenset(),
    "SWHardeningNeeded": frozenset({"software-hardening-needed"}),
    "ConfigurationNeeded": frozenset({"insecure-configuration"}),
    "ConfigurationAndSWHardeningNeeded": frozenset({"insecure-configuration", "software-hardening-needed"}),
    "OutOfDate": frozenset({"outdated-tcb"}),
    "OutOfDateConfigurationNeeded": frozenset({"outdated-tcb", "insecure-configuration"}),
}
_NO_LIMIT = 100 * 365 * 24 * 3600

# Configuration flags of a PCK from a platform CA (Intel SGX PCK Certificate and CRL Profile): what each needs tolerated.
# None: nothing makes up for it.
_CONFIGURATION = (
    ("1.2.840.113741.1.13.1.7.1", "is dynamic (packages can be added to it)", None),
    ("1.2.840.113741.1.13.1.7.2", "keeps its keys in a cache of its manufacturer", None),
    ("1.2.840.113741.1.13.1.7.3", "has SMT (hyperthreading) on", "hyperthreading"),
)
_FALSE = b"\0"


class QuotePolicy(Struct, frozen=True, kw_only=True):
    """What is tolerated. `tolerate` and `ignore_advisories` are spelled as in a session; the default tolerates nothing."""

    allow_debug: bool = False
    tolerate: frozenset[str] = frozenset()
    ignore_advisories: frozenset[str] = frozenset()


class VerifiedQuote(Struct, frozen=True, kw_only=True):
    """A report whose signatures hold up to a trusted root. `simulated`: that root is of a software platform."""

    report: ReportBody
    verdict: Verdict
    simulated: bool


def load_roots(pem: str | bytes) -> tuple[bytes, ...]:
    """Read trusted roots (DER each) from PEM text. UsageError for anything that is not a self-signed CA certificate."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import Encoding

    data = pem.encode() if isinstance(pem, str) else pem
    try:
        certificates = x509.load_pem_x509_certificates(data)
        for certificate in certificates:
            certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UsageError(f"not a root certificate: {error or 'it is not self-signed'}", hint="expected PEM text") from error
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def verify_quote(
    data: bytes,
    collateral: Collateral,
    roots: tuple[bytes, ...],
    now: datetime,
    policy: QuotePolicy,
) -> VerifiedQuote:
    """Check a quote against trusted roots (DER). Raises QuoteError.

    Its `code` is one of `malformed`, `not-initialised`, `debug`, `untrusted-root`, `collateral`, `invalid` (a signature,
    chain, date or revocation) and `tcb` (genuine, but its platform's state is not tolerated).
    """
    quote = parse_quote(data)
    _check_attributes(quote.report, "report")
    _check_attributes(quote.qe_report, "quoting enclave's report")
    root = trusted_root(quote, roots)
    simulated = is_simulated(root)
    if (quote.report.debug or simulated) and not policy.allow_debug:
        raise _debug_refused(debug=quote.report.debug, simulated=simulated)
    platform = pck_extension(quote)
    _check_collateral(platform, collateral, now)
    _check_configuration(platform, policy)
    if quote.report.debug:
        verdict = verify_debug_quote(quote, collateral, root, now)
        _check_tcb(verdict, policy)
    else:
        verdict = _verify_production_quote(data, collateral, root, now, policy)
    return VerifiedQuote(report=quote.report, verdict=verdict, simulated=simulated)


def trusted_root(quote: Quote, roots: tuple[bytes, ...]) -> bytes:
    """Return the root (DER) that the quote's own chain ends in, if it is one of `roots`."""
    from cryptography.hazmat.primitives.serialization import Encoding

    claimed = load_chain(quote.pck_chain, length=PCK_CHAIN_LENGTH, what="PCK")[-1]
    der = claimed.public_bytes(Encoding.DER)
    if der not in roots:
        name = claimed.subject.rfc4514_string()
        raise QuoteError(
            f"the quote's root is not trusted: {name[:120]!r}",
            code="untrusted-root",
            hint="if you trust that platform, add its root (sconify-cas root prints a simulated one's)",
        )
    return der


def is_simulated(root: bytes) -> bool:
    """Whether a root (DER) calls itself simulated. Such a root counts as debug, whatever a quote below it says."""
    from cryptography import x509

    return SIMULATED in x509.load_der_x509_certificate(root).subject.rfc4514_string()


def _check_attributes(report: ReportBody, what: str) -> None:
    if not report.flags & INIT:
        raise QuoteError(f"the {what} is of an enclave that was never initialised", code="not-initialised")
    if not report.flags & MODE64BIT:
        raise QuoteError(f"the {what} is not of a 64-bit enclave", code="not-initialised")


def _debug_refused(*, debug: bool, simulated: bool) -> QuoteError:
    what = " and ".join(["is of a DEBUG enclave"] * debug + ["comes from a SIMULATED platform"] * simulated)
    return QuoteError(
        f"debug mode is not tolerated: the quote {what}, which does not protect the program from its host",
        code="debug",
        hint="to accept that for tests, tolerate debug-mode in the session: build with --allow-debug-mode",
    )


def _check_collateral(platform: Any, collateral: Collateral, now: datetime) -> None:
    """Check what dcap-qvl leaves open: the version of the TCB info, its PCE, and CRLs that are not valid yet."""
    from cryptography import x509

    try:
        tcb_info: Any = json.loads(collateral.tcb_info)
        version, pce_id = tcb_info["version"], bytes.fromhex(tcb_info["pceId"])
        crls = [x509.load_der_x509_crl(crl) for crl in (collateral.root_ca_crl, collateral.pck_crl)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise QuoteError(f"collateral can't be read: {error}", code="collateral") from error
    if version != 3:  # noqa: PLR2004 - PCS API v4 calls it version 3
        raise QuoteError(f"TCB info of version {version!r} where 3 was expected", code="collateral")
    if platform.pce_id != pce_id:
        raise QuoteError("the TCB info is for another provisioning enclave (PCE-ID)", code="collateral")
    if any(crl.last_update_utc > now for crl in crls):
        raise QuoteError("a revocation list is not valid yet", code="collateral", hint="check the clock")


def _check_configuration(platform: Any, policy: QuotePolicy) -> None:
    """Refuse what the library's strict policy refuses as well; it never sees DEBUG quotes."""
    for oid, what, needs in _CONFIGURATION:
        if platform.get_value(oid) not in {None, _FALSE} and needs not in policy.tolerate:
            hint = f"tolerate {needs} in the session" if needs else "use another platform"
            raise QuoteError(f"the quote's platform {what}, which is not tolerated", code="tcb", hint=hint)


def _verify_production_quote(data: bytes, collateral: Collateral, root: bytes, now: datetime, policy: QuotePolicy) -> Verdict:
    import dcap_qvl

    seconds = int(now.timestamp())
    verifier = dcap_qvl.QuoteVerifier(root)
    try:
        bundle = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json())
        claims = json.loads(
            verifier.verify_with_policy(data, bundle, seconds, dcap_qvl.QuotePolicy.claims_only(seconds)).to_json()
        )
        verdict = Verdict(status=claims["tcb"]["status"], advisories=tuple(claims["tcb"]["advisory_ids"]))
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise QuoteError(f"the quote does not verify: {error}", code="invalid") from error
    _check_tcb(verdict, policy)
    try:
        # Again under the strict policy: it also refuses what no status shows (cached keys, dynamic platforms, SMT).
        verifier.verify_with_policy(data, bundle, seconds, _library_policy(seconds, policy))
    except (ValueError, TypeError, OverflowError) as error:
        raise QuoteError(f"the platform's state is not tolerated: {error}", code="tcb") from error
    return verdict


def _library_policy(seconds: int, policy: QuotePolicy) -> Any:
    import dcap_qvl

    strict = dcap_qvl.QuotePolicy.strict(seconds)
    for status, needs in _NEEDS.items():
        if needs and needs <= policy.tolerate:
            strict = strict.allow_status(status)
    if "outdated-tcb" in policy.tolerate:
        # Without a grace period the library refuses what was just allowed.
        strict = strict.platform_grace_period(_NO_LIMIT).qe_grace_period(_NO_LIMIT)
    return strict.allow_smt("hyperthreading" in policy.tolerate)


def _check_tcb(verdict: Verdict, policy: QuotePolicy) -> None:
    """One rule for both verifiers: every need of the status is tolerated, every advisory is ignored by name."""
    needs = _NEEDS.get(verdict.status)
    if needs is None:
        raise QuoteError(f"the platform's TCB status is {verdict.status}", code="tcb")
    if missing := sorted(needs - policy.tolerate):
        raise QuoteError(
            f"the platform's TCB status is {verdict.status}, and the session does not tolerate {', '.join(missing)}",
            code="tcb",
            hint="update the platform, or build with --allow-tcb-vulnerabilities",
        )
    if ALL_ADVISORIES in policy.ignore_advisories:
        return
    if open_advisories := sorted(set(verdict.advisories) - policy.ignore_advisories):
        raise QuoteError(
            f"security advisories apply to the platform: {', '.join(open_advisories)}",
            code="tcb",
            hint="update the platform, or list them under ignore_advisories",
        )
