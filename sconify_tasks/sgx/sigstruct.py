"""SIGSTRUCT: the signature over an enclave's measurement (Intel SDM vol. 3D, table 34-19; docs/formats.md section 7)."""

from __future__ import annotations

import hashlib
import struct

from msgspec import Struct

from sconify_tasks.sgx.claims import (
    DEBUG,
    DEFAULT_DATE,
    FLAGS_MASK,
    HEADER,
    HEADER2,
    MISC_MASK,
    MODE64BIT,
    SIGNED_SIZE,
    XFRM_MASK,
    Claims,
    bits_of,
    named,
    require_date,
)
from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.signer import EXPONENT, KEY_BITS, Signer

SIZE = 1808
_LAYOUT = struct.Struct("<16sII16sI84s384sI384sII20s16s16s32s32sHH12s384s384s")
_EXPONENT = struct.Struct("<I")
_NUMBER = KEY_BITS // 8
_HEAD, _BODY, _QUOTIENTS = slice(0, 128), slice(900, 1028), slice(1040, None)


class Sigstruct(Struct, frozen=True, kw_only=True):
    """The fields that vary; all others are constants of the format, which `parse_sigstruct` checks."""

    date: int
    modulus: int
    signature: int
    debug: bool
    mrenclave: MrEnclave
    isv_prod_id: int
    isv_svn: int
    attributes: tuple[str, ...]
    raw: bytes

    @property
    def mrsigner(self) -> str:
        """SHA-256 of the modulus as stored, as 64 hex digits."""
        return mrsigner(self.modulus)

    @property
    def claims(self) -> Claims:
        """What is signed, without who signed it."""
        return Claims(
            mrenclave=self.mrenclave,
            debug=self.debug,
            isv_prod_id=self.isv_prod_id,
            isv_svn=self.isv_svn,
            date=self.date,
            attributes=self.attributes,
        )

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        return self.raw[_HEAD] + self.raw[_BODY]


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
    attributes: tuple[str, ...] = (),
) -> bytes:
    """Sign; the result is verified before it is returned. `date` is a number that reads yyyymmdd."""
    claims = Claims(
        mrenclave=mrenclave, debug=debug, isv_prod_id=isv_prod_id, isv_svn=isv_svn, date=date, attributes=attributes
    )
    return assemble(claims, signer.modulus, signer.sign(claims.signed))


def assemble(claims: Claims, modulus: int, signature: bytes) -> bytes:
    """Put a SIGSTRUCT together from a signature (384 bytes, big-endian). EnclaveError unless it verifies.

    A signer is a device, a service, another machine or a damaged key: what it returns is checked before anyone gets it,
    also because one wrong RSA-CRT signature gives the private key away.
    """
    number = int.from_bytes(signature, "big")
    if len(signature) != _NUMBER or number >= modulus:
        raise EnclaveError("signature", "what the signer returned is no signature of its key", hint="look at the signer")
    sigstruct = b"".join(
        (
            claims.head,
            _le(modulus),
            _EXPONENT.pack(EXPONENT),
            _le(number),
            claims.body,
            bytes(12),
            *map(_le, _quotients(number, modulus)),
        )
    )
    try:
        verify_sigstruct(parse_sigstruct(sigstruct))
    except EnclaveError as error:
        raise EnclaveError(
            error.code, f"what the signer returned is refused: {error.message}", hint="look at the signer"
        ) from None
    return sigstruct


def parse_signed_data(data: bytes) -> Claims:
    """Read the 256 bytes that are signed; EnclaveError for anything else."""
    if len(data) != SIGNED_SIZE:
        raise EnclaveError("length", f"the data to be signed has {SIGNED_SIZE} bytes, not {len(data)}")
    middle = bytes(_NUMBER) + _EXPONENT.pack(EXPONENT) + bytes(_NUMBER)
    return parse_sigstruct(data[:128] + middle + data[128:] + bytes(12 + 2 * _NUMBER)).claims


def parse_sigstruct(data: bytes) -> Sigstruct:
    """Take the fields; EnclaveError for a wrong length, a constant or a reserved byte that is not as it must be."""
    if len(data) != SIZE:
        raise EnclaveError("length", f"a SIGSTRUCT has {SIZE} bytes, not {len(data)}")
    (
        header, vendor, date, header2, swdefined, reserved1, modulus, exponent, signature, miscselect, miscmask, reserved2,
        attributes, mask, mrenclave, reserved3, prod_id, svn, reserved4, _, _,
    ) = _LAYOUT.unpack(data)  # fmt: skip
    if header != HEADER or header2 != HEADER2:
        raise EnclaveError("header", "this is not a SIGSTRUCT")
    if vendor or swdefined or any(any(reserved) for reserved in (reserved1, reserved2, reserved3, reserved4)):
        raise EnclaveError("reserved", "a reserved field of the SIGSTRUCT is not zero")
    if exponent != EXPONENT:
        raise EnclaveError("exponent", f"the exponent of the SIGSTRUCT is {exponent}, not {EXPONENT}")
    debug = bool(attributes[0] & DEBUG)
    demanded = named(*struct.unpack("<QQ", attributes))
    flags, xfrm = bits_of(demanded)
    bit = DEBUG if debug else 0
    expected = struct.pack("<QQQQII", MODE64BIT | bit | flags, xfrm, FLAGS_MASK ^ bit, XFRM_MASK | xfrm, 0, MISC_MASK)
    if attributes + mask + struct.pack("<II", miscselect, miscmask) != expected:
        raise EnclaveError("attributes", "the SIGSTRUCT allows other enclave attributes than the format does")
    return Sigstruct(
        date=_decode_date(date),
        modulus=int.from_bytes(modulus, "little"),
        signature=int.from_bytes(signature, "little"),
        debug=debug,
        mrenclave=MrEnclave(mrenclave.hex()),
        isv_prod_id=prod_id,
        isv_svn=svn,
        attributes=demanded,
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
    if sigstruct.raw[_QUOTIENTS] != _le(q1) + _le(q2):
        raise EnclaveError("quotients", "Q1 or Q2 of the SIGSTRUCT is wrong: a processor would refuse it")
    if mrenclave is not None and sigstruct.mrenclave != mrenclave:
        raise EnclaveError("mrenclave", f"the SIGSTRUCT is for MRENCLAVE {sigstruct.mrenclave}, not for {mrenclave}")


def _quotients(signature: int, modulus: int) -> tuple[int, int]:
    """Q1 = floor(S^2 / M), Q2 = floor((S^3 - Q1 * S * M) / M): they spare EINIT the divisions."""
    q1, remainder = divmod(signature * signature, modulus)
    return q1, signature * remainder // modulus


def _le(number: int) -> bytes:
    return number.to_bytes(_NUMBER, "little")


def _decode_date(encoded: int) -> int:
    """BCD to a number that reads the same."""
    try:
        date = int(f"{encoded:08x}")
        require_date(date)
    except ValueError:
        raise EnclaveError("date", f"the date of the SIGSTRUCT is {encoded:08x}") from None
    return date
