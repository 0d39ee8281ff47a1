"""Our own verifier, for the quotes that `dcap-qvl` refuses by principle: those of DEBUG enclaves.

It follows the same ten steps as the library (TCB info, QE identity, PCK chain, QE report, attestation key, TCB level) and
is compared with it in tests on production quotes. Where the two differ this one is the stricter. It accepts exactly the
chains that PCKs come with (leaf, CA, root; and leaf, root for what the manufacturer signs) and P-256 with SHA-256 only.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.pck import PCK_CHAIN_LENGTH, Verdict, load_chain, pck_extension
from sconify_tasks.sgx.quote import DEBUG, Quote, QuoteError, ReportBody

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_COMPONENTS = 16
# Worst last; `merge` takes the worse of platform and quoting enclave.
_SEVERITY = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)


def verify_debug_quote(quote: Quote, collateral: Collateral, root: bytes, now: datetime) -> Verdict:
    """Check every signature, date and revocation from `root` (DER, trusted) down to the report. Raises QuoteError.

    The DEBUG bit of the report itself plays no part: whether debug is tolerated was decided before.
    """
    try:
        return _verify(quote, collateral, root, now)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        # Parsers of the libraries raise these for hostile certificates, CRLs and JSON.
        raise _invalid(f"collateral can't be read: {type(error).__name__}: {error}") from error


def _verify(quote: Quote, collateral: Collateral, root: bytes, now: datetime) -> Verdict:
    from cryptography import x509

    anchor = x509.load_der_x509_certificate(root)
    pck, pck_ca, _ = pck_chain = load_chain(quote.pck_chain, length=PCK_CHAIN_LENGTH, what="PCK")
    tcb_chain = load_chain(collateral.tcb_info_issuer_chain, length=2, what="TCB info")
    qe_chain = load_chain(collateral.qe_identity_issuer_chain, length=2, what="QE identity")
    root_crl = _crl(collateral.root_ca_crl, anchor, now)
    pck_crl = _crl(collateral.pck_crl, pck_ca, now)
    for chain in (pck_chain, tcb_chain, qe_chain):
        _check_chain(chain, anchor, now, (root_crl, pck_crl))
    tcb_info = _signed_json(collateral.tcb_info, collateral.tcb_info_signature, tcb_chain[0], now, "TCB info")
    qe_identity = _signed_json(collateral.qe_identity, collateral.qe_identity_signature, qe_chain[0], now, "QE identity")

    _check_signature(_public_key(pck), quote.qe_signature, quote.qe_report.to_bytes(), "quoting enclave's report")
    expected = hashlib.sha256(quote.attestation_key + quote.auth_data).digest() + bytes(32)
    if quote.qe_report.report_data != expected:
        raise _invalid("the attestation key is not the one that the quoting enclave reported")
    _check_signature(_raw_key(quote.attestation_key), quote.signature, quote.signed_bytes, "report")
    platform = _platform_level(tcb_info, quote)
    return _merge(platform, _qe_level(qe_identity, quote.qe_report))


def _invalid(message: str) -> QuoteError:
    return QuoteError(f"the quote does not verify: {message}", code="invalid")


def _check_chain(
    chain: list[x509.Certificate],
    anchor: x509.Certificate,
    now: datetime,
    crls: tuple[x509.CertificateRevocationList, ...],
) -> None:
    from cryptography.exceptions import InvalidSignature

    if chain[-1] != anchor:
        raise _invalid("a chain does not end in the trusted root")
    for certificate, issuer in zip(chain, [*chain[1:], anchor], strict=True):
        name = certificate.subject.rfc4514_string()[:120]
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise _invalid(f"certificate {name!r} is expired or not valid yet")
        try:
            certificate.verify_directly_issued_by(issuer)
        except InvalidSignature as error:
            raise _invalid(f"certificate {name!r} is not signed by its issuer") from error
        _public_key(certificate)
        _check_role(certificate, ca=certificate is not chain[0])
        for crl in crls:
            if crl.issuer == certificate.issuer and crl.get_revoked_certificate_by_serial_number(certificate.serial_number):
                raise _invalid(f"certificate {name!r} is revoked")
        if not any(crl.issuer == certificate.issuer for crl in crls):
            raise _invalid(f"no revocation list covers certificate {name!r}")


def _check_role(certificate: x509.Certificate, *, ca: bool) -> None:
    from cryptography import x509

    known = {x509.OID_BASIC_CONSTRAINTS, x509.OID_KEY_USAGE}
    extensions = certificate.extensions
    if any(extension.critical and extension.oid not in known for extension in extensions):
        raise _invalid("a certificate has a critical extension that is not understood")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca is not ca:
        raise _invalid("a certificate is used as a CA and is none, or the reverse")
    if ca and not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
        raise _invalid("a CA certificate may not sign certificates")


def _crl(der: bytes, issuer: x509.Certificate, now: datetime) -> x509.CertificateRevocationList:
    from cryptography import x509

    crl = x509.load_der_x509_crl(der)
    if crl.issuer != issuer.subject or not crl.is_signature_valid(_public_key(issuer)):
        raise _invalid("a revocation list is not signed by its issuer")
    if crl.next_update_utc is None or not crl.last_update_utc <= now <= crl.next_update_utc:
        raise _invalid("a revocation list is expired or not valid yet")
    return crl


def _public_key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid("a certificate's key is not P-256")
    return key


def _raw_key(point: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)


def _check_signature(key: EllipticCurvePublicKey, signature: bytes, data: bytes, what: str) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    if len(signature) != 64:  # noqa: PLR2004 - raw r||s
        raise _invalid(f"the signature over the {what} has {len(signature)} bytes")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise _invalid(f"the signature over the {what} is wrong") from error


def _signed_json(text: str, signature: bytes, signer: x509.Certificate, now: datetime, what: str) -> dict[str, Any]:
    _check_signature(_public_key(signer), signature, text.encode(), what)
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"{what} is not an object")
    issued, until = (datetime.fromisoformat(value[key]) for key in ("issueDate", "nextUpdate"))
    if not issued <= now <= until:
        raise _invalid(f"the {what} is expired or not valid yet")
    return value


def _platform_level(tcb_info: dict[str, Any], quote: Quote) -> Verdict:
    platform = pck_extension(quote)
    if (tcb_info["id"], tcb_info["version"], tcb_info["tcbType"]) != ("SGX", 3, 0):
        raise _invalid("the TCB info is not for SGX")
    if bytes.fromhex(tcb_info["fmspc"]) != platform.fmspc or bytes.fromhex(tcb_info["pceId"]) != platform.pce_id:
        raise _invalid("the TCB info is for another kind of platform (FMSPC)")
    levels = [(_components(level), level["tcb"]["pcesvn"], level) for level in tcb_info["tcbLevels"]]
    # Highest first, whatever the order of the text: the first level that the platform reaches in every component is its own.
    for components, pce_svn, level in sorted(levels, key=lambda entry: entry[:2], reverse=True):
        if platform.pce_svn >= pce_svn and all(have >= need for have, need in zip(platform.cpu_svn, components, strict=True)):
            return _verdict(level)
    raise _invalid("the platform is below every level of the TCB info")


def _components(level: dict[str, Any]) -> tuple[int, ...]:
    components = tuple(component["svn"] for component in level["tcb"]["sgxtcbcomponents"])
    if len(components) != _COMPONENTS:
        raise ValueError(f"a TCB level with {len(components)} components")
    return components


def _qe_level(identity: dict[str, Any], report: ReportBody) -> Verdict:
    if (identity["id"], identity["version"]) != ("QE", 2):
        raise _invalid("the QE identity is not for SGX")
    # Integers in these hex fields are little-endian, like the report's own.
    misc, misc_mask, flags, flags_mask = (
        int.from_bytes(bytes.fromhex(identity[key]), "little")
        for key in ("miscselect", "miscselectMask", "attributes", "attributesMask")
    )
    if report.flags & DEBUG:
        raise _invalid("the quoting enclave is a DEBUG enclave")
    if (
        report.mr_signer != bytes.fromhex(identity["mrsigner"])
        or report.isv_prod_id != identity["isvprodid"]
        or report.misc_select & misc_mask != misc & misc_mask
        or (report.flags | report.xfrm << 64) & flags_mask != flags & flags_mask
    ):
        raise _invalid("the quoting enclave is not the one that the QE identity describes")
    for level in sorted(identity["tcbLevels"], key=lambda level: level["tcb"]["isvsvn"], reverse=True):
        if report.isv_svn >= level["tcb"]["isvsvn"]:
            return _verdict(level)
    raise _invalid("the quoting enclave is below every level of the QE identity")


def _verdict(level: dict[str, Any]) -> Verdict:
    status, advisories = level["tcbStatus"], level.get("advisoryIDs", [])
    if status not in _SEVERITY or not all(isinstance(advisory, str) for advisory in advisories):
        raise ValueError("a TCB level that can't be read")
    return Verdict(status=status, advisories=tuple(advisories))


def _merge(platform: Verdict, enclave: Verdict) -> Verdict:
    status = max(platform.status, enclave.status, key=_SEVERITY.index)
    return Verdict(status=status, advisories=tuple(dict.fromkeys(platform.advisories + enclave.advisories)))
