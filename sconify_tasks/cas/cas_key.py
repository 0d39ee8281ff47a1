"""The CAS's long-lived identity key. The SHA-256 of its SPKI is the pin that enclaves carry in their measured config.

A new key is a new CAS: every image that was built for the old one refuses it. `pin` needs no cryptography, for plans.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sconify_tasks.cas.identity import self_signed, spki_hash
from sconify_tasks.errors import StoreError
from sconify_tasks.sgx.private_file import create_private, read_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_KEY_FILE = "identity.pem"
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)-----END PUBLIC KEY-----\n")


class CasKey(Struct, frozen=True, kw_only=True):
    """The identity key, and a certificate around it for TLS."""

    key: EllipticCurvePrivateKey
    spki_hash: str

    def certificate(self) -> x509.Certificate:
        """Wrap the key; names and dates in it mean nothing."""
        return self_signed(self.key, "cas")


def pin(folder: Path) -> str | None:
    """Return the SPKI hash of the CAS kept in a folder, from its key file's public half; None where there is no CAS yet."""
    content = read_private(folder / _KEY_FILE)
    return None if content is None else _public_hash(folder / _KEY_FILE, content)


def open_cas_key(folder: Path) -> CasKey:
    """Load the key of a folder, or make one. StoreError where the file is damaged or open to others."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = folder / _KEY_FILE
    content = read_private(path)
    if content is None:
        content = create_private(path, _new_key())
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _damaged(path)
    found = spki_hash(key.public_key())
    if found != _public_hash(path, content):
        raise _damaged(path)
    return CasKey(key=key, spki_hash=found)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _public_hash(path: Path, content: bytes) -> str:
    found = _PUBLIC.search(content)
    if found is None:
        raise _damaged(path)
    try:
        return hashlib.sha256(base64.b64decode(found[1])).hexdigest()
    except binascii.Error as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"{path} is not the key of a CAS", hint="restore it from a backup: images built for this CAS refuse any other key"
    )
