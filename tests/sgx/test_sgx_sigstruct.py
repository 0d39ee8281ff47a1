"""SIGSTRUCT and signers: built ones satisfy a verifier written from the SDM, changed ones satisfy nobody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sgx import sdm

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.claims import ATTRIBUTES, attributes_of
from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.signer import DEBUG_KEY, MAKE_KEY, PemSigner, debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct, mrsigner, parse_sigstruct, verify_sigstruct

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "sigstruct.json").read_text())
MRENCLAVE = MrEnclave("5a" * 32)
SIGSTRUCT = bytes.fromhex(VECTORS["cases"][1]["sigstruct"])


def named(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


@named(VECTORS["cases"])
def test_a_vector_is_read_and_verified_by_the_product_and_from_the_sdm(case):
    data = bytes.fromhex(case["sigstruct"])
    parsed = parse_sigstruct(data)
    verify_sigstruct(parsed, mrenclave=MrEnclave(case["mrenclave"]))
    fields = ("mrenclave", "mrsigner", "debug", "isv_prod_id", "isv_svn", "date")
    assert {name: getattr(parsed, name) for name in fields} == {name: case[name] for name in fields}
    assert list(parsed.attributes) == case["attributes"]
    assert sdm.einit(data, case["mrenclave"]) == parsed.mrsigner


@named(VECTORS["refused"])
def test_a_wrong_sigstruct_is_refused_for_its_own_reason(case):
    with pytest.raises(EnclaveError) as refusal:
        verify_sigstruct(parse_sigstruct(bytes.fromhex(case["sigstruct"])))
    assert refusal.value.code == case["error"]


@given(st.integers(0, 8 * 1808 - 1))
@settings(max_examples=300, deadline=None)
def test_every_flipped_bit_is_refused(bit):
    flipped = bytearray(SIGSTRUCT)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnclaveError):
        verify_sigstruct(parse_sigstruct(bytes(flipped)))


def test_another_measurement_is_named():
    with pytest.raises(EnclaveError, match=r"is for MRENCLAVE 5a5a.*, not for 0000") as refusal:
        verify_sigstruct(parse_sigstruct(SIGSTRUCT), mrenclave=MrEnclave("00" * 32))
    assert refusal.value.code == "mrenclave"


def test_the_same_signature_every_time():
    assert build_sigstruct(MRENCLAVE, debug_signer(), debug=True) == build_sigstruct(MRENCLAVE, debug_signer(), debug=True)


@pytest.mark.parametrize("arguments", [{"isv_svn": 65_536}, {"isv_prod_id": -1}, {"date": 20261301}, {"date": 1}])
def test_values_out_of_range_are_not_signed(arguments):
    with pytest.raises(ValueError, match=r"product id|date"):
        build_sigstruct(MRENCLAVE, debug_signer(), debug=True, **arguments)


# From the SDM: bits of ATTRIBUTES.FLAGS (vol. 3D, table 34-3) beside MODE64BIT, and XFRM whole (vol. 1, 13.1).
DEMANDED = {
    "provision-key": (0x10, 0x3),
    "einittoken-key": (0x20, 0x3),
    "avx": (0, 0x7),
    "avx512": (0, 0xE7),
    "pkru": (0, 0x203),
    "amx": (0, 0x60003),
}


def test_every_attribute_is_in_the_table_above():
    assert DEMANDED.keys() == ATTRIBUTES.keys()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("name", DEMANDED)
def test_an_enclave_starts_only_with_the_attributes_that_were_asked_for(name, debug):
    attributes = attributes_of([name])
    sigstruct = build_sigstruct(MRENCLAVE, debug_signer(), debug=debug, attributes=attributes)
    assert sdm.einit(sigstruct, MRENCLAVE) == mrsigner(debug_signer().modulus)
    flags, xfrm = DEMANDED[name]
    mode = 0x6 if debug else 0x4
    assert sdm.admits(sigstruct, mode | flags, xfrm)
    assert not sdm.admits(sigstruct, mode, 0x3)
    assert sdm.admits(sigstruct, 0x4 | flags, xfrm)
    assert sdm.admits(sigstruct, 0x6 | flags, xfrm) is debug
    assert not sdm.admits(sigstruct, mode | flags ^ 0x10, xfrm), "another key"
    assert not sdm.admits(sigstruct, mode | flags, xfrm ^ 0x200), "another feature"
    # AVX and AVX-512 are the platform's affair where nobody asks.
    assert sdm.admits(sigstruct, mode | flags, xfrm | 0xE4)
    parsed = parse_sigstruct(sigstruct)
    assert (parsed.attributes, parsed.claims.attributes) == (attributes, attributes)


def test_avx512_takes_avx_along_and_names_that_are_none_are_refused():
    assert attributes_of(["avx512", "provision-key"]) == ("provision-key", "avx", "avx512")
    with pytest.raises(ValueError, match="no attribute sse5"):
        attributes_of(["sse5"])
    with pytest.raises(ValueError, match="imply others"):
        build_sigstruct(MRENCLAVE, debug_signer(), debug=True, attributes=("avx512",))


def test_what_a_faulty_signer_returns_is_not_handed_on():
    class Faulty:
        modulus = debug_signer().modulus

        def sign(self, data):
            return bytes(383) + b"\1"

    with pytest.raises(EnclaveError) as refusal:
        build_sigstruct(MRENCLAVE, Faulty(), debug=True)
    assert refusal.value.code == "signature"


def test_the_debug_key_is_a_constant_and_says_what_it_is():
    assert b"protects nothing" in DEBUG_KEY.read_bytes().split(b"-----BEGIN")[0]
    assert mrsigner(debug_signer().modulus) == VECTORS["cases"][0]["mrsigner"]
    assert PemSigner.from_file(DEBUG_KEY).modulus == debug_signer().modulus


def test_the_command_of_the_hint_makes_a_right_key(tmp_path):
    command = MAKE_KEY.removeprefix("make one with: ").split()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    signer = PemSigner.from_file(tmp_path / "signer.pem")
    sigstruct = build_sigstruct(MRENCLAVE, signer, debug=False)
    assert sdm.einit(sigstruct, MRENCLAVE) == mrsigner(signer.modulus) != mrsigner(debug_signer().modulus)


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


DECRYPT = "decrypt it first: openssl pkey -in KEY -out PLAIN_KEY"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param(lambda: pem(rsa.generate_private_key(65537, 2048)), "RSA-2048 with exponent 65537", id="2048 bits"),
        pytest.param(lambda: pem(rsa.generate_private_key(3, 2048)), "RSA-2048 with exponent 3", id="2048 bits, e = 3"),
        pytest.param(lambda: pem(rsa.generate_private_key(65537, 3072)), "RSA-3072 with exponent 65537", id="e = 65537"),
        pytest.param(lambda: pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key", id="elliptic"),
        pytest.param(lambda: b"no key", "no private key", id="no PEM"),
        pytest.param(lambda: b"", "no private key", id="empty"),
        pytest.param(lambda: DEBUG_KEY.read_bytes()[:900], "no private key", id="cut"),
        pytest.param(
            lambda: pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")),
            "encrypted",
            id="encrypted",
        ),
    ],
)
def test_a_key_that_sgx_does_not_take_is_refused_with_the_way_to_a_right_one(key, reason, tmp_path):
    (tmp_path / "key.pem").write_bytes(key())
    with pytest.raises(UsageError, match=reason) as refusal:
        PemSigner.from_file(tmp_path / "key.pem")
    assert refusal.value.hint == (DECRYPT if reason == "encrypted" else MAKE_KEY)
    assert "key.pem" in refusal.value.message


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.pem can't be read: No such file"):
        PemSigner.from_file(tmp_path / "absent.pem")
