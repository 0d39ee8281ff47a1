"""SIGSTRUCT: the signature over an enclave's measurement (Intel SDM vol. 3D, table 34-19; docs/formats.md section 7)."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from struct import Struct

from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.signer import EXPONENT, KEY_BITS, Signer

SIZE = 1808
DEFAULT_DATE = 20250101
MAX_ID = 0xFFFF

MODE64BIT, DEBUG = 0x4, 0x2
XFRM = 0x3
XFRM_MASK = 0xFFFFFFFFFFFFFF1B
_FLAGS_MASK = 0xFFFFFFFFFFFFFFFF
_MISC_MASK = 0xFFFFFFFF

_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_LAYOUT = Struct("<16sII16sI84s384sI384sII20s16s16s32s32sHH12s384s384s")
_NUMBER = KEY_BITS // 8
_SIGNED = (slice(0, 128), slice(900, 1028))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstruct:
    """The fields that vary; all others are constants of the format, which `parse_sigstruct` checks."""

    date: int
    modulus: int
    signature: int
    debug: bool
    mrenclave: MrEnclave
    isv_prod_id: int
    isv_svn: int
    raw: bytes

    @property
    def mrsigner(self) -> str:
        """SHA-256 of the modulus as stored, as 64 hex digits."""
        return mrsigner(self.modulus)

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        return b"".join(self.raw[part] for part in _SIGNED)


def mrsigner(modulus: int) -> str:
    """Return SHA-256 of the little-endian modulus, as 64 hex digits."""
    return hashlib.sha256(modulus.to_bytes(_NUMBER, "little")).hexdigest()


def build_sigstruct(
    mrenclave: MrEnclave,
    signer: Signer,
    *,
    debug: bool,
    isv_prod_id: int = 0,
    isv_svn: int = 0,
    date: int = DEFAULT_DATE,
) -> bytes:
    """Sign; the result is verified before it is returned. `date` is a number that reads yyyymmdd."""
    _require_date(date)
    if not (0 <= isv_prod_id <= MAX_ID and 0 <= isv_svn <= MAX_ID):
        raise ValueError(f"product id and SVN are 0 to {MAX_ID}, not {isv_prod_id} and {isv_svn}")

    def pack(signature: int, q1: int, q2: int) -> bytes:
        attributes = Struct("<QQ")
        return _LAYOUT.pack(
            _HEADER,
            0,  # VENDOR
            int(str(date), 16),
            _HEADER2,
            0,  # SWDEFINED
            bytes(84),
            _le(signer.modulus),
            EXPONENT,
            _le(signature),
            0,  # MISCSELECT
            _MISC_MASK,
            bytes(20),
            attributes.pack(MODE64BIT | (DEBUG if debug else 0), XFRM),
            attributes.pack(_FLAGS_MASK ^ (DEBUG if debug else 0), XFRM_MASK),
            bytes.fromhex(mrenclave),
            bytes(32),
            isv_prod_id,
            isv_svn,
            bytes(12),
            _le(q1),
            _le(q2),
        )

    unsigned = pack(0, 0, 0)
    signature = int.from_bytes(signer.sign(b"".join(unsigned[part] for part in _SIGNED)), "big")
    if signature >= signer.modulus:
        raise EnclaveError("signature", "the signer returned no signature of its own key", hint="look at the signer")
    sigstruct = pack(signature, *_quotients(signature, signer.modulus))
    # A signer is a device, a service, or a damaged key: what it returns is checked before anyone gets it, also because
    # one wrong RSA-CRT signature gives the private key away.
    verify_sigstruct(parse_sigstruct(sigstruct))
    return sigstruct


def parse_sigstruct(data: bytes) -> Sigstruct:
    """Take the fields; EnclaveError for a wrong length, a constant or a reserved byte that is not as it must be."""
    if len(data) != SIZE:
        raise EnclaveError("length", f"a SIGSTRUCT has {SIZE} bytes, not {len(data)}")
    (
        header, vendor, date, header2, swdefined, reserved1, modulus, exponent, signature, miscselect, miscmask, reserved2,
        attributes, mask, mrenclave, reserved3, prod_id, svn, reserved4, _, _,
    ) = _LAYOUT.unpack(data)  # fmt: skip
    if header != _HEADER or header2 != _HEADER2:
        raise EnclaveError("header", "this is not a SIGSTRUCT")
    if vendor or swdefined or any(any(reserved) for reserved in (reserved1, reserved2, reserved3, reserved4)):
        raise EnclaveError("reserved", "a reserved field of the SIGSTRUCT is not zero")
    if exponent != EXPONENT:
        raise EnclaveError("exponent", f"the exponent of the SIGSTRUCT is {exponent}, not {EXPONENT}")
    debug = bool(attributes[0] & DEBUG)
    expected = Struct("<QQQQII").pack(
        MODE64BIT | (DEBUG if debug else 0), XFRM, _FLAGS_MASK ^ (DEBUG if debug else 0), XFRM_MASK, 0, _MISC_MASK
    )
    if attributes + mask + Struct("<II").pack(miscselect, miscmask) != expected:
        raise EnclaveError("attributes", "the SIGSTRUCT allows other enclave attributes than the format does")
    return Sigstruct(
        date=_decode_date(date),
        modulus=int.from_bytes(modulus, "little"),
        signature=int.from_bytes(signature, "little"),
        debug=debug,
        mrenclave=MrEnclave(mrenclave.hex()),
        isv_prod_id=prod_id,
        isv_svn=svn,
        raw=bytes(data),
    )


def verify_sigstruct(sigstruct: Sigstruct, *, mrenclave: MrEnclave | None = None) -> None:
    """Raise EnclaveError unless signature, Q1 and Q2 are right, and the measurement is `mrenclave` if one is given."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    modulus, signature = sigstruct.modulus, sigstruct.signature
    if modulus.bit_length() != KEY_BITS or modulus % 2 == 0 or signature >= modulus:
        raise EnclaveError("signature", "the key or the signature of the SIGSTRUCT is out of range")
    key = RSAPublicNumbers(EXPONENT, modulus).public_key()
    try:
        key.verify(signature.to_bytes(_NUMBER, "big"), sigstruct.signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        raise EnclaveError("signature", "the signature of the SIGSTRUCT is wrong") from None
    q1, q2 = _quotients(signature, modulus)
    if sigstruct.raw[1040:] != _le(q1) + _le(q2):
        raise EnclaveError("quotients", "Q1 or Q2 of the SIGSTRUCT is wrong: a processor would refuse it")
    if mrenclave is not None and sigstruct.mrenclave != mrenclave:
        raise EnclaveError("mrenclave", f"the SIGSTRUCT is for MRENCLAVE {sigstruct.mrenclave}, not for {mrenclave}")


def _quotients(signature: int, modulus: int) -> tuple[int, int]:
    """Q1 = floor(S^2 / M), Q2 = floor((S^3 - Q1 * S * M) / M): they spare EINIT the divisions."""
    q1, remainder = divmod(signature * signature, modulus)
    return q1, signature * remainder // modulus


def _le(number: int) -> bytes:
    return number.to_bytes(_NUMBER, "little")


def _require_date(date: int) -> None:
    try:
        dt.date(date // 10000, date // 100 % 100, date % 100)
    except ValueError:
        raise ValueError(f"not a date of the form yyyymmdd: {date}") from None


def _decode_date(encoded: int) -> int:
    """BCD to a number that reads the same."""
    try:
        date = int(f"{encoded:08x}")
        _require_date(date)
    except ValueError:
        raise EnclaveError("date", f"the date of the SIGSTRUCT is {encoded:08x}") from None
    return date
