"""A session that admits a signer: whatever that signer signs starts, with this product id and at least this SVN; nothing else does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from main_job.server import clean_environment
from signing.conftest import other_key
from signing.keys import SigningKey, make_key

__all__ = ["other_key"]

PROGRAM = "tell(greeting=read('/app/greeting.txt'))"


@pytest.fixture(scope="module")
def key(workshop, need) -> SigningKey:
    """One for all workers, as the image that it signs is."""
    folder = workshop.folder / "signing-key"

    def make() -> str:
        folder.mkdir()
        make_key(need("openssl"), folder)
        return "{}"

    workshop.once("signing-key", make)
    return SigningKey.of(folder)


@pytest.fixture(scope="module")
def signed(workshop, native, key):
    return workshop.confidential(
        "signed",
        native,
        "--base=scratch",
        "--command=python3 -B /app/lab.py",
        "--allow-debug-mode",
        "--attest-signer",
        f"--scone-signer={key.pem}",
        "--isvprodid=3",
        "--isvsvn=5",
        "--enclave-attributes=avx512",
        "--enclave-attributes=provision-key",
    )


def sign_again(workshop, image, by, tmp_path, *values):
    """Have another key, or the same with other values, sign the image that is there; return the new image's name."""
    name = workshop.engine.name("signed-again")
    environment = {**clean_environment(), "HOME": str(workshop.home), "DOCKER_HOST": workshop.engine.host}

    def command(*words):
        program = [sys.executable, "-m", "sconify_tasks.signing.cli", *words]
        return subprocess.run(program, env=environment, capture_output=True, check=True).stdout

    (tmp_path / "tbs").write_bytes(command("data", f"docker:{image}", *values))
    words = ["openssl", "dgst", "-sha256", "-sign", by.pem, "-out", tmp_path / "sig", tmp_path / "tbs"]
    subprocess.run(words, check=True)
    given = ("--signature", tmp_path / "sig", "--key", by.public, "--data", tmp_path / "tbs")
    command("attach", f"docker:{image}", *given, "--to", f"docker:{name}")
    return name


def test_an_enclave_of_the_signer_starts(signed, containers):
    assert containers.run(signed, PROGRAM).told == {"greeting": "hello from a protected file"}


def test_one_with_a_higher_svn_and_other_attributes_that_was_signed_on_another_machine_starts_too(
    signed, containers, workshop, key, tmp_path
):
    image = sign_again(workshop, signed, key, tmp_path, "--isvsvn", "6", "--enclave-attributes", "pkru")
    assert containers.run(image, PROGRAM).told == {"greeting": "hello from a protected file"}


@pytest.mark.parametrize("values", [("--isvsvn", "4"), ("--isvprodid", "4")], ids=" ".join)
def test_a_lower_svn_or_another_product_does_not(signed, containers, workshop, key, values, tmp_path):  # noqa: PLR0917
    ended = containers.run(sign_again(workshop, signed, key, tmp_path, *values), PROGRAM)
    assert (ended.status, ended.stdout) == (1, "")
    assert "unexpected enclave measurement" in ended.stderr


def test_the_same_enclave_signed_by_somebody_else_does_not(signed, containers, workshop, other_key, tmp_path):
    ended = containers.run(sign_again(workshop, signed, other_key, tmp_path), PROGRAM)
    assert (ended.status, ended.stdout) == (1, "")
    assert "expected an enclave of signer" in ended.stderr
