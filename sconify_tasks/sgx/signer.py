"""Who signs enclaves: the interface, and a key in a PEM file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sconify_tasks.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

KEY_BITS = 3072
EXPONENT = 3
MAKE_KEY = "make one with: openssl genrsa -3 -out signer.pem 3072"
DEBUG_KEY = Path(__file__).parent / "debug_key.pem"
DEBUG_MRSIGNER = "81b2be39b2441aeb945d23bfeda529e11ee5f759ade4e69d064a5a719406ff29"
"""MRSIGNER of the debug key, written out: a build that finds nothing to do loads no key."""
_MAX_PEM = 1 << 16


class Signer(Protocol):
    """An RSA-3072 key with public exponent 3, wherever it lies."""

    @property
    def modulus(self) -> int:
        """The public modulus, of exactly 3072 bits."""

    def sign(self, data: bytes) -> bytes:
        """PKCS#1 v1.5 over SHA-256 of `data`: 384 bytes, big-endian. The same data gives the same bytes."""


class PemSigner:
    """A private key in memory, from PEM."""

    __slots__ = ("_key", "modulus")

    def __init__(
        self,
        pem: bytes,
        *,
        name: str = "the signing key",
        validate: bool = True,
        passphrase: Callable[[str], bytes] | None = None,
    ) -> None:
        """Raise UsageError for anything but such a key. `validate=False` skips 0.15 s of primality tests: for known keys.

        `passphrase` is asked, with the key's name, only where the key is encrypted.
        """
        self._key = _load(pem, name, validate=validate, passphrase=passphrase)
        self.modulus = self._key.public_key().public_numbers().n

    @classmethod
    def from_file(cls, path: Path, *, passphrase: Callable[[str], bytes] | None = None) -> PemSigner:
        """Load the key of `--scone-signer`."""
        return cls(read_pem(path, "the signing key"), name=f"the signing key {path}", passphrase=passphrase)

    def sign(self, data: bytes) -> bytes:
        """Sign as `Signer` says."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, PKCS1v15(), SHA256())


def debug_signer() -> PemSigner:
    """Return the published debug key: it protects nothing, and marks every enclave it signs as debuggable."""
    return PemSigner(DEBUG_KEY.read_bytes(), name="the debug key", validate=False)


def read_pem(path: Path, what: str) -> bytes:
    """Read a key file of at most 64 KiB; UsageError where it can't be."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PEM)
    except OSError as error:
        raise UsageError(f"{what} {path} can't be read: {error.strerror}", hint="give a PEM file") from error


def require_key(name: str, *, bits: int, exponent: int) -> None:
    """Raise UsageError unless it is RSA-3072 with exponent 3."""
    if (bits, exponent) != (KEY_BITS, EXPONENT):
        raise UsageError(f"{name} is RSA-{bits} with exponent {exponent}: SGX demands RSA-3072 with exponent 3", hint=MAKE_KEY)


def _load(pem: bytes, name: str, *, validate: bool, passphrase: Callable[[str], bytes] | None) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        try:
            key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=not validate)
        except TypeError:  # that is how the library says: encrypted
            if passphrase is None:
                raise UsageError(f"{name} is encrypted", hint="decrypt it first: openssl pkey -in KEY -out PLAIN_KEY") from None
            key = _decrypt(pem, name, passphrase(name), validate=validate)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{name} is no private key in PEM form", hint=MAKE_KEY) from None
    if not isinstance(key, RSAPrivateKey):
        raise UsageError(f"{name} is not an RSA key, which SGX demands", hint=MAKE_KEY)
    require_key(name, bits=key.key_size, exponent=key.public_key().public_numbers().e)
    return key


def _decrypt(pem: bytes, name: str, passphrase: bytes, *, validate: bool) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=passphrase, unsafe_skip_rsa_key_validation=not validate)
    except (ValueError, TypeError):  # an empty passphrase is a TypeError
        raise UsageError(f"{name} can't be decrypted", hint="the passphrase is wrong, or the file is damaged") from None
