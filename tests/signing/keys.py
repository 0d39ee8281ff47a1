"""Real signing keys, made with the programs that users make them with."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from parts.need import Need

PASSPHRASE = "correct horse battery"
PIN = "1234"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One RSA-3072 key with exponent 3: as it is, encrypted, and its public half."""

    pem: Path
    encrypted: Path
    public: Path

    @classmethod
    def of(cls, folder: Path) -> SigningKey:
        return cls(pem=folder / "signer.pem", encrypted=folder / "encrypted.pem", public=folder / "signer.pub")


def make_key(openssl: str, folder: Path) -> SigningKey:
    key = SigningKey.of(folder)
    run(openssl, "genrsa", "-3", "-out", key.pem, "3072")
    run(openssl, "pkey", "-in", key.pem, "-aes256", "-passout", f"pass:{PASSPHRASE}", "-out", key.encrypted)
    run(openssl, "pkey", "-in", key.pem, "-pubout", "-out", key.public)
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftToken:
    """A PKCS#11 token in files, with a key labelled `signer` (id A1); `variables` are what its module reads."""

    folder: Path
    uri: str = f"pkcs11:token=sconify;object=signer?module-path={MODULE}"

    @property
    def variables(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}


def make_token(need: Need, folder: Path, key: SigningKey) -> SoftToken:
    util, token = need("softhsm2-util"), SoftToken(folder=folder)
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    run(need("openssl"), "pkcs8", "-topk8", "-nocrypt", "-in", key.pem, "-out", folder / "import.pem")
    run(util, "--init-token", "--free", "--label", "sconify", "--so-pin", "4321", "--pin", PIN, **token.variables)
    words = ("--token", "sconify", "--label", "signer", "--id", "a1", "--pin", PIN)
    run(util, "--import", folder / "import.pem", *words, **token.variables)
    return token


def run(*words: str | Path, **variables: str) -> None:
    import os

    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **variables})


def secrets_of(key: SigningKey) -> list[bytes]:
    """Pieces of the private key that must be found nowhere: its primes, as integers and inside PEM."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.pem.read_bytes(), None).private_numbers()
    lines = key.pem.read_bytes().splitlines()
    return [private.p.to_bytes(192, "big"), private.q.to_bytes(192, "little"), lines[len(lines) // 2], lines[-3]]
