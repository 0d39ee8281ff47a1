"""Simulated platforms for tests, and ways to damage what they make."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.platform import SimulatedPlatform, _certificate, _der, _pair, _sgx_extension, _sign
from sconify_tasks.sgx.quote import DEBUG, INIT, MODE64BIT, ReportBody

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
DATA = Path(__file__).parent / "data"
PRODUCTION_FLAGS = INIT | MODE64BIT
DEBUG_FLAGS = PRODUCTION_FLAGS | DEBUG


def report(flags: int = DEBUG_FLAGS, **fields: object) -> ReportBody:
    values = {"mr_enclave": b"\xaa" * 32, "mr_signer": b"\xbb" * 32, "report_data": b"\xcc" * 64, "flags": flags} | fields
    return ReportBody(**values)


def with_tcb_info(platform: SimulatedPlatform, collateral: Collateral, **changes: object) -> Collateral:
    """The manufacturer signs other TCB info."""
    text = json.dumps({**json.loads(collateral.tcb_info), **changes}, separators=(",", ":"))
    return replace(collateral, tcb_info=text, tcb_info_signature=_sign(platform.keys["tcb"], text.encode()))


def with_qe_identity(platform: SimulatedPlatform, collateral: Collateral, **changes: object) -> Collateral:
    text = json.dumps({**json.loads(collateral.qe_identity), **changes}, separators=(",", ":"))
    return replace(collateral, qe_identity=text, qe_identity_signature=_sign(platform.keys["tcb"], text.encode()))


def with_level(
    platform: SimulatedPlatform, collateral: Collateral, status: str, advisories: tuple[str, ...] = ()
) -> Collateral:
    """The platform's own TCB level gets another status."""
    level = {**json.loads(collateral.tcb_info)["tcbLevels"][0], "tcbStatus": status, "advisoryIDs": list(advisories)}
    return with_tcb_info(platform, collateral, tcbLevels=[level])


def with_configuration(platform: SimulatedPlatform, *, dynamic: bool, cached: bool, smt: bool) -> SimulatedPlatform:
    """The same platform with a PCK as platform CAs make them."""
    flags = enumerate((dynamic, cached, smt), start=1)
    values = b"".join(_pair(f"7.{number}", _der(0x01, b"\xff" if flag else b"\0")) for number, flag in flags)
    plain = _sgx_extension()
    assert plain[1] == 0x82
    extension = _der(0x30, plain[4:] + _pair("7", _der(0x30, values)))
    issuer, since = platform.certificates["pck-ca"], NOW - timedelta(days=2)
    pck = _certificate(
        "PCK Certificate", platform.keys["pck"], issuer=issuer, signer=platform.keys["pck-ca"], since=since, sgx=extension
    )
    return replace(platform, certificates={**platform.certificates, "pck": pck})


def crl(
    platform: SimulatedPlatform,
    issuer: str,
    revoked: tuple[str, ...] = (),
    *,
    signer: str | None = None,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=20),
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(platform.certificates[issuer].subject)
        .last_update(NOW + since)
        .next_update(NOW + until)
        .add_extension(x509.CRLNumber(2), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(platform.keys[issuer].public_key()), critical=False)
    )
    for name in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(platform.certificates[name].serial_number).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(platform.keys[signer or issuer], SHA256()).public_bytes(Encoding.DER)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
