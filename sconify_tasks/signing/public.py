"""The public half of a signing key: what a signature is checked with, and what MRSIGNER is made of."""

from __future__ import annotations

from pathlib import Path

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.signer import read_pem, require_key

_HINT = "write it with: openssl pkey -in signer.pem -pubout -out signer.pub"


def load_public(path: Path) -> int:
    """Return the modulus of an RSA-3072 key with exponent 3 from a PEM file; UsageError for any other."""
    return parse_public(read_pem(path, "the public key"), name=f"the public key {path}")


def parse_public(pem: bytes, *, name: str) -> int:
    """Do the same with what a file holds."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-" in pem:
        raise UsageError(f"{name} is a private key", hint=_HINT)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{name} is no public key in PEM form", hint=_HINT) from None
    if not isinstance(key, RSAPublicKey):
        raise UsageError(f"{name} is not an RSA key, which SGX demands", hint=_HINT)
    numbers = key.public_numbers()
    require_key(name, bits=key.key_size, exponent=numbers.e)
    return numbers.n
