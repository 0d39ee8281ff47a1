"""Who signs enclaves: the interface, and a key in a PEM file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sconify_tasks.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

KEY_BITS = 3072
EXPONENT = 3
MAKE_KEY = "make one with: openssl genrsa -3 -out signer.pem 3072"
DEBUG_KEY = Path(__file__).parent / "debug_key.pem"
_MAX_PEM = 1 << 16


class Signer(Protocol):
    """An RSA-3072 key with public exponent 3, wherever it lies."""

    @property
    def modulus(self) -> int:
        """The public modulus, of exactly 3072 bits."""

    def sign(self, data: bytes) -> bytes:
        """PKCS#1 v1.5 over SHA-256 of `data`: 384 bytes, big-endian. The same data gives the same bytes."""


class PemSigner:
    """A private key in memory, from unencrypted PEM."""

    __slots__ = ("_key", "modulus")

    def __init__(self, pem: bytes, *, name: str = "the signing key", validate: bool = True) -> None:
        """Raise UsageError for anything but such a key. `validate=False` skips 0.15 s of primality tests: for known keys."""
        self._key = _load(pem, name, validate=validate)
        self.modulus = self._key.public_key().public_numbers().n

    @classmethod
    def from_file(cls, path: Path) -> PemSigner:
        """Load the key of `--scone-signer`."""
        try:
            with path.open("rb") as file:
                pem = file.read(_MAX_PEM)
        except OSError as error:
            raise UsageError(
                f"the signing key {path} can't be read: {error.strerror}", hint="give --scone-signer a PEM file"
            ) from error
        return cls(pem, name=f"the signing key {path}")

    def sign(self, data: bytes) -> bytes:
        """Sign as `Signer` says."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, PKCS1v15(), SHA256())


def debug_signer() -> PemSigner:
    """Return the published debug key: it protects nothing, and marks every enclave it signs as debuggable."""
    return PemSigner(DEBUG_KEY.read_bytes(), name="the debug key", validate=False)


def _load(pem: bytes, name: str, *, validate: bool) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=not validate)
    except TypeError:
        raise UsageError(f"{name} is encrypted", hint="decrypt it first: openssl pkey -in KEY -out PLAIN_KEY") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{name} is no private key in PEM form", hint=MAKE_KEY) from None
    if not isinstance(key, RSAPrivateKey):
        raise UsageError(f"{name} is not an RSA key, which SGX demands", hint=MAKE_KEY)
    exponent = key.public_key().public_numbers().e
    if key.key_size != KEY_BITS or exponent != EXPONENT:
        raise UsageError(
            f"{name} is RSA-{key.key_size} with exponent {exponent}: SGX demands RSA-3072 with exponent 3", hint=MAKE_KEY
        )
    return key
