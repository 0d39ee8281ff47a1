"""Who a client is: a key, known to the CAS by the SHA-256 of its SubjectPublicKeyInfo. Certificates are wrapping.

An identity file holds a PEM PKCS#8 private key and an X.509 certificate. Without one, an identity is made once and kept
in `~/.cas/config.json` under `identity`, where the documented tools look for it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sconify_tasks.errors import StoreError, UsageError
from sconify_tasks.sgx.private_file import create_private, read_private, replace_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_LIMIT = 1 << 20
_RESTORE = "restore the file, or move it away to get a new identity"
_HOW = "make one with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -keyout - -out -"
# TLS proves possession of the key; dates prove nothing here, so they must not end an identity.
_SINCE = datetime(2020, 1, 1, tzinfo=UTC)
_LIFE = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client's key and certificate. `pem` is both, as they stand in an identity file."""

    spki_hash: str
    pem: str = field(repr=False)


def spki_hash(key: PublicKeyTypes) -> str:
    """SHA-256 over the key's SPKI in DER, 64 hex digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def certificate_spki_hash(der: bytes) -> str:
    """Hash a certificate's key the same way. Raises ValueError for what is no certificate, or has a key of an unknown kind."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return spki_hash(x509.load_der_x509_certificate(der).public_key())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def parse_identity(pem: str, *, name: str) -> Identity:
    """Read an identity file's text; `name` stands for it in errors. UsageError where key and certificate don't make a pair."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = pem.encode("ascii")
        key: PrivateKeyTypes = load_pem_private_key(data, password=None)
        certificate: x509.Certificate = x509.load_pem_x509_certificate(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{name} is not an identity (a private key in PKCS#8 and a certificate, both PEM)", hint=_HOW
        ) from error
    own = spki_hash(key.public_key())
    if spki_hash(certificate.public_key()) != own:
        raise UsageError(f"{name}: the certificate is not of the private key beside it", hint=_HOW)
    return Identity(spki_hash=own, pem=pem)


def load_identity(path: Path) -> Identity:
    """Read an identity file. UsageError where it is missing or malformed."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT)
    except OSError as error:
        raise UsageError(f"identity {path} can't be read: {error.strerror}", hint=_HOW) from error
    return parse_identity(content.decode("ascii", "replace"), name=str(path))


def default_identity(config: Path) -> Identity:
    """Return the identity kept in a config file (`~/.cas/config.json`), made when there is none. Its other keys stay."""
    content = read_private(config)
    if content is None:
        content = create_private(config, _with_identity({}))
    value = _config(config, content)
    if "identity" not in value:
        replace_private(config, _with_identity(value))
        value = _config(config, read_private(config) or b"{}")
    pem = value.get("identity")
    if not isinstance(pem, str):
        raise StoreError(f"{config}: the identity is not a string", hint=_RESTORE)
    return parse_identity(pem, name=str(config))


def new_identity() -> Identity:
    """Draw a P-256 key and wrap it into a certificate."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = private + self_signed(key, "sconify client").public_bytes(Encoding.PEM)
    return Identity(spki_hash=spki_hash(key.public_key()), pem=pem.decode())


def self_signed(key: EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    """Wrap a key into a certificate that says nothing: peers look at the key alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(_SINCE + _LIFE)
    )
    return builder.sign(key, SHA256())


def _config(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON", hint=_RESTORE) from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is not a JSON object", hint=_RESTORE)
    return value


def _with_identity(value: dict[str, Any]) -> bytes:
    return json.dumps({**value, "identity": new_identity().pem}, indent=2).encode() + b"\n"
