"""DCAP v3 ECDSA-P256 quotes: the bytes and nothing but the bytes.

`parse_quote` is strict: wrong lengths, reserved bytes, unknown versions and trailing bytes are refused. It checks no
signature; `sconify_tasks.sgx.verify` does. Layout: Intel SGX DCAP ECDSA Quote Library API, appendix A.4 (quote format),
and Intel SDM vol. 3D, table 38-21 (REPORT).

A quote is malleable: the certificate chain at its end is not signed as bytes (its PEM may be wrapped otherwise, and ECDSA
signatures have a twin), so a hash of a quote identifies nothing. Identify by what is signed: the report body.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from sconify_tasks.errors import VerificationError

VERSION = 3
ECDSA_P256 = 2
INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
PCK_CHAIN = 5
AUTH_DATA_LENGTH = 32

HEADER_LENGTH = 48
REPORT_LENGTH = 384
SIGNED_LENGTH = HEADER_LENGTH + REPORT_LENGTH
FIXED_LENGTH = SIGNED_LENGTH + 4 + 64 + 64 + REPORT_LENGTH + 64 + 2 + AUTH_DATA_LENGTH + 2 + 4
MAX_LENGTH = 64 * 1024

INIT = 0x1
DEBUG = 0x2
MODE64BIT = 0x4

_HEADER = struct.Struct("<HHIHH16s20s")
_REPORT = struct.Struct("<16sI12s16sQQ32s32s32s32s64sHHH42s16s64s")


class QuoteError(VerificationError):
    """A quote that is refused. `code` is one word for programs: the message is for people."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def _malformed(message: str) -> QuoteError:
    return QuoteError(f"quote is malformed: {message}", code="malformed")


class Header(Struct, frozen=True, kw_only=True):
    """The 48 bytes before the report body. `tee_type` 0 is SGX."""

    version: int = VERSION
    attestation_key_type: int = ECDSA_P256
    tee_type: int = 0
    qe_svn: int = 0
    pce_svn: int = 0
    qe_vendor_id: bytes = INTEL_QE_VENDOR_ID
    user_data: bytes = bytes(20)

    def to_bytes(self) -> bytes:
        """48 bytes."""
        return _HEADER.pack(
            self.version,
            self.attestation_key_type,
            self.tee_type,
            self.qe_svn,
            self.pce_svn,
            _sized(self.qe_vendor_id, 16),
            _sized(self.user_data, 20),
        )


class ReportBody(Struct, frozen=True, kw_only=True):
    """What an enclave reports about itself (384 bytes): `flags` and `xfrm` are its ATTRIBUTES."""

    mr_enclave: bytes
    mr_signer: bytes
    report_data: bytes
    flags: int
    xfrm: int = 3
    isv_prod_id: int = 0
    isv_svn: int = 0
    config_svn: int = 0
    config_id: bytes = bytes(64)
    isv_family_id: bytes = bytes(16)
    isv_ext_prod_id: bytes = bytes(16)
    cpu_svn: bytes = bytes(16)
    misc_select: int = 0

    @property
    def debug(self) -> bool:
        """True where the host may read and write the enclave's memory."""
        return bool(self.flags & DEBUG)

    def to_bytes(self) -> bytes:
        """384 bytes, reserved ones zero."""
        return _REPORT.pack(
            _sized(self.cpu_svn, 16),
            self.misc_select,
            bytes(12),
            _sized(self.isv_ext_prod_id, 16),
            self.flags,
            self.xfrm,
            _sized(self.mr_enclave, 32),
            bytes(32),
            _sized(self.mr_signer, 32),
            bytes(32),
            _sized(self.config_id, 64),
            self.isv_prod_id,
            self.isv_svn,
            self.config_svn,
            bytes(42),
            _sized(self.isv_family_id, 16),
            _sized(self.report_data, 64),
        )


class Quote(Struct, frozen=True, kw_only=True):
    """A whole quote. Signatures are raw r||s, keys raw x||y; `pck_chain` is PEM, leaf first."""

    header: Header
    report: ReportBody
    signature: bytes
    attestation_key: bytes
    qe_report: ReportBody
    qe_signature: bytes
    auth_data: bytes
    pck_chain: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the attestation key signs: header and report body."""
        return self.header.to_bytes() + self.report.to_bytes()

    def to_bytes(self) -> bytes:
        """Return the quote as it travels."""
        signature_data = b"".join(
            (
                _sized(self.signature, 64),
                _sized(self.attestation_key, 64),
                self.qe_report.to_bytes(),
                _sized(self.qe_signature, 64),
                struct.pack("<H", AUTH_DATA_LENGTH),
                _sized(self.auth_data, AUTH_DATA_LENGTH),
                struct.pack("<HI", PCK_CHAIN, len(self.pck_chain)),
                self.pck_chain,
            ),
        )
        return self.signed_bytes + struct.pack("<I", len(signature_data)) + signature_data


def _sized(value: bytes, length: int) -> bytes:
    # struct would pad or cut silently.
    if len(value) != length:
        msg = f"expected {length} bytes, got {len(value)}"
        raise ValueError(msg)
    return value


def parse_header(data: bytes) -> Header:
    """Parse 48 bytes; only version 3, ECDSA-P256, SGX and Intel's quoting enclave vendor pass."""
    version, key_type, tee_type, qe_svn, pce_svn, vendor, user_data = _HEADER.unpack(data)
    if version != VERSION:
        raise _malformed(f"version {version} where {VERSION} was expected")
    if key_type != ECDSA_P256:
        raise _malformed(f"attestation key type {key_type} where ECDSA-P256 ({ECDSA_P256}) was expected")
    if tee_type != 0:
        raise _malformed(f"TEE type {tee_type:#x} where SGX (0) was expected")
    if vendor != INTEL_QE_VENDOR_ID:
        raise _malformed(f"unknown quoting enclave vendor {vendor.hex()}")
    return Header(qe_svn=qe_svn, pce_svn=pce_svn, user_data=user_data)


def parse_report(data: bytes) -> ReportBody:
    """Parse a report body of 384 bytes; reserved bytes must be zero."""
    (cpu, misc, res1, ext, flags, xfrm, enclave, res2, signer, res3, config, prod, svn, csvn, res4, family, user) = (
        _REPORT.unpack(data)
    )
    if any(res1) or any(res2) or any(res3) or any(res4):
        raise _malformed("reserved bytes of a report are not zero")
    return ReportBody(
        cpu_svn=cpu,
        misc_select=misc,
        isv_ext_prod_id=ext,
        flags=flags,
        xfrm=xfrm,
        mr_enclave=enclave,
        mr_signer=signer,
        config_id=config,
        isv_prod_id=prod,
        isv_svn=svn,
        config_svn=csvn,
        isv_family_id=family,
        report_data=user,
    )


def parse_quote(data: bytes) -> Quote:
    """Take a quote apart. Raises QuoteError (`malformed`) for anything but a complete v3 quote without a byte too many."""
    if not FIXED_LENGTH <= len(data) <= MAX_LENGTH:
        raise _malformed(f"{len(data)} bytes, where {FIXED_LENGTH} to {MAX_LENGTH} are possible")
    (signature_length,) = struct.unpack_from("<I", data, SIGNED_LENGTH)
    if signature_length != len(data) - SIGNED_LENGTH - 4:
        raise _malformed(f"signature data of {signature_length} bytes in a quote of {len(data)}")
    at = SIGNED_LENGTH + 4
    qe_at = at + 128
    auth_at = qe_at + REPORT_LENGTH + 64
    (auth_length,) = struct.unpack_from("<H", data, auth_at)
    if auth_length != AUTH_DATA_LENGTH:
        raise _malformed(f"authentication data of {auth_length} bytes where {AUTH_DATA_LENGTH} were expected")
    chain_at = auth_at + 2 + AUTH_DATA_LENGTH
    chain_type, chain_length = struct.unpack_from("<HI", data, chain_at)
    if chain_type != PCK_CHAIN:
        raise _malformed(f"certification data of type {chain_type} where a PCK chain ({PCK_CHAIN}) was expected")
    if chain_length != len(data) - chain_at - 6:
        raise _malformed(f"a PCK chain of {chain_length} bytes in {len(data) - chain_at - 6}")
    return Quote(
        header=parse_header(data[:HEADER_LENGTH]),
        report=parse_report(data[HEADER_LENGTH:SIGNED_LENGTH]),
        signature=data[at : at + 64],
        attestation_key=data[at + 64 : qe_at],
        qe_report=parse_report(data[qe_at : qe_at + REPORT_LENGTH]),
        qe_signature=data[qe_at + REPORT_LENGTH : auth_at],
        auth_data=data[auth_at + 2 : chain_at],
        pck_chain=data[chain_at + 6 :],
    )
