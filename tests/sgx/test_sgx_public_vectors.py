"""What others measured and signed: the verifier of these tests and the product agree with it."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from sgx import sdm

from sconify_tasks.sgx.measurement import EnclaveError
from sconify_tasks.sgx.sgxs import records
from sconify_tasks.sgx.sigstruct import _le, _quotients, mrsigner, parse_sigstruct

DATA = Path(__file__).parent / "data"
STREAM = zlib.decompress((DATA / "fortanix_enclave.sgxs.zlib").read_bytes())
SIGNED = pytest.mark.parametrize("name", ["fortanix_enclave.sig", "fortanix_sig1.sig"])


def test_the_verifier_executes_the_stream_of_an_enclave_that_runs_on_processors():
    sigstruct = (DATA / "fortanix_enclave.sig").read_bytes()
    processor = sdm.Processor(STREAM, our_layout=False)
    assert processor.mrenclave == sigstruct[960:992].hex()


def test_the_product_writes_the_records_of_such_an_enclave_byte_for_byte():
    """The pages and the size come from the stream, the records around them are the product's."""
    processor = sdm.Processor(STREAM, our_layout=False)

    class Theirs:
        size = processor.size

        def pages(self, runtime):
            from sconify_tasks.sgx.layout import Page

            for offset, (flags, content) in processor.pages.items():
                yield Page(offset=offset, flags=flags, content=bytes(content))

    assert processor.ssa_frame_size == 1
    assert hashlib.sha256(b"".join(records(Theirs(), b""))).hexdigest() == processor.mrenclave


@SIGNED
def test_the_verifier_accepts_their_signature_and_no_changed_one(name):
    data = (DATA / name).read_bytes()
    sdm.einit(data, data[960:992].hex())
    for position in (20, 200, 520, 930, 970, 1026, 1100, 1500):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(AssertionError):
            sdm.einit(bytes(changed), data[960:992].hex())


@SIGNED
def test_the_product_computes_their_signer_and_their_quotients(name):
    data = (DATA / name).read_bytes()
    modulus, signature = int.from_bytes(data[128:512], "little"), int.from_bytes(data[516:900], "little")
    assert mrsigner(modulus) == sdm.einit(data, data[960:992].hex())
    assert b"".join(map(_le, _quotients(signature, modulus))) == data[1040:]


@SIGNED
def test_the_product_reads_signatures_of_its_own_format_only(name):
    """Theirs leave it open whether the enclave is in debug mode."""
    with pytest.raises(EnclaveError) as refusal:
        parse_sigstruct((DATA / name).read_bytes())
    assert refusal.value.code == "attributes"
