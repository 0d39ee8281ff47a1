"""Builds with a key of the user's own: what is signed, when the signer is asked, and where the key must not turn up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from build.small_image import Place, Recorder, convert, options_for, world_of
from cli.commands import arguments, run, variables
from msgspec.structs import replace
from sgx import sdm
from signing.keys import MODULE, PASSPHRASE, PIN, secrets_of

from sconify_dodo import front, plan
from sconify_dodo.front import Order
from sconify_tasks.graph import STEPS
from sconify_tasks.image.oci import OciSource
from sconify_tasks.policy.parse import parse_session
from sconify_tasks.sconified import read_sconified
from sconify_tasks.sgx.signer import DEBUG_KEY, DEBUG_MRSIGNER
from sconify_tasks.sgx.sigstruct import mrsigner
from sconify_tasks.signing.public import load_public


def delivered(place: Place):
    """What the delivered image's binary carries, its signature checked by the verifier that is written from the SDM."""
    image = OciSource(place.layout, "small")
    (place.folder / "prog").write_bytes(image.read(b"/bin/prog", limit=1 << 26))
    image.close()
    found = read_sconified(place.folder / "prog")
    assert sdm.einit(found.sigstruct.raw, found.sigstruct.mrenclave) == found.sigstruct.mrsigner
    return found.sigstruct


@pytest.fixture
def counting(key, tmp_path, need):
    """A signing command that says how often it was asked."""
    script = f"echo asked >> {tmp_path}/asked; exec {need('openssl')} dgst -sha256 -sign {key.pem}"
    (tmp_path / "sign").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "sign").chmod(0o755)

    class Counting:
        @property
        def options(self):
            return {"scone_signer": f"command:{tmp_path}/sign", "scone_signer_public_key": str(key.public)}

        @property
        def asked(self):
            log = tmp_path / "asked"
            return len(log.read_text().splitlines()) if log.exists() else 0

    return Counting()


def test_without_a_signer_the_published_key_signs_for_debugging(native, place):
    assert convert(native, place).code == 0
    found = delivered(place)
    assert (found.mrsigner, found.debug, found.isv_prod_id, found.isv_svn, found.date) == (DEBUG_MRSIGNER, True, 0, 0, 20250101)


def test_a_key_of_the_users_signs_for_production_with_the_values_that_were_asked_for(native, place, key):
    given = {"isvprodid": 7, "isvsvn": 65_535, "signing_date": 20260228}
    assert convert(native, place, scone_signer=str(key.pem), **given).code == 0
    found = delivered(place)
    assert (found.mrsigner, found.debug) == (mrsigner(load_public(key.public)), False)
    assert (found.isv_prod_id, found.isv_svn, found.date) == (7, 65_535, 20260228)


def test_the_mode_may_be_debug_with_a_key_of_the_users_and_never_production_with_the_published_one(native, place, key):
    assert convert(native, place, scone_signer=str(key.pem), enclave_mode="debug").code == 0
    assert delivered(place).debug is True
    for given in ({}, {"scone_signer": str(DEBUG_KEY)}):
        outcome = convert(native, place, enclave_mode="production", **given)
        assert outcome.code == 2
        assert "the debug key is published" in outcome.failures["sign"]


def test_signature_values_and_the_signer_do_not_change_mrenclave(native, place, key):
    seen = set()
    asked = {"enclave_attributes": ("avx512", "provision-key")}
    for given in ({}, {"scone_signer": str(key.pem)}, {"isvsvn": 3}, {"signing_date": 20260228}, {"isvprodid": 3}, asked):
        convert(native, place, **given)
        seen.add(delivered(place).mrenclave)
    assert len(seen) == 1
    assert delivered(place).attributes == ("provision-key", "avx", "avx512")


def test_what_was_signed_once_is_not_signed_again(native, place, counting):
    def build(at=place, **given):
        return convert(native, at, **counting.options, **given).code

    assert build() == 0
    assert counting.asked == 1
    assert build() == 0
    assert counting.asked == 1, "nothing changed"
    assert build(plain=(), env=("A=b",)) == 0
    assert counting.asked == 1, "the measurement did not change"
    assert build(heap=1 << 20) == 0
    assert counting.asked == 2
    assert build() == 0
    assert build(to=f"oci:{place.folder}/another:image") == 0
    assert counting.asked == 2, "another image with the same measurement and key"
    assert delivered(place).debug is False


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cached_signature_is_used_where_the_step_must_run_again_unless_it_is_damaged(
    native, place, counting, damaged, monkeypatch
):
    assert convert(native, place, **counting.options).code == 0
    bumped = tuple(replace(step, version=step.version + 1) if step.name == "sign" else step for step in STEPS)
    monkeypatch.setattr(plan, "STEPS", bumped)
    if damaged:
        (blob,) = (path for path in (place.cache / "store").rglob("*") if path.is_file() and path.stat().st_size == 1808)
        blob.chmod(0o600)
        blob.write_bytes(bytes(1808))
    assert "sign" in convert(native, place, **counting.options).ran
    assert counting.asked == 1 + damaged
    delivered(place)


def test_a_build_with_nothing_to_sign_neither_loads_the_key_nor_asks_for_its_passphrase(native, place, key):
    options = {"scone_signer": str(key.encrypted)}
    assert convert(native, place, variables={"SCONIFY_SIGNER_PASSPHRASE": PASSPHRASE}, **options).code == 0
    outcome = convert(native, place, variables={"SCONIFY_SIGNER_PASSPHRASE": "wrong"}, **options)
    assert (outcome.code, outcome.started) == (0, [])
    outcome = convert(native, place, heap=1 << 20, variables={"SCONIFY_SIGNER_PASSPHRASE": "wrong"}, **options)
    assert outcome.code == 2
    assert "can't be decrypted" in outcome.failures["sign"]


def test_a_passphrase_in_a_file_opens_the_key_of_a_build(native, place, key, tmp_path):
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    options = {"scone_signer": str(key.encrypted), "scone_signer_passphrase_file": str(tmp_path / "passphrase")}
    assert convert(native, place, **options).code == 0
    found = delivered(place)
    assert (found.mrsigner, found.debug) == (mrsigner(load_public(key.public)), False)
    (tmp_path / "passphrase").write_text("wrong\n")
    outcome = convert(native, place, heap=1 << 20, **options)
    assert (outcome.code, "can't be decrypted" in outcome.failures["sign"]) == (2, True)


def test_a_token_signs_and_is_not_touched_again(native, place, token, key, monkeypatch):
    said = {"SCONIFY_SIGNER_PASSPHRASE": PIN, "SCONIFY_PKCS11_MODULE": MODULE, "SCONIFY_SIGNER": "pkcs11:object=signer"}
    assert convert(native, place, variables=said).code == 0
    assert delivered(place).mrsigner == mrsigner(load_public(key.public))
    # Gone: whoever touches it now fails.
    monkeypatch.setenv("SOFTHSM2_CONF", "/nonexistent")
    monkeypatch.setattr("sconify_tasks.signing.pkcs11.TokenSigner._session", None)
    assert convert(native, place, variables=said).started == []
    assert convert(native, place, env=("A=b",), variables=said).code == 0


def test_another_key_under_the_same_name_is_noticed_and_known_from_then_on(native, place, key, other_key, tmp_path):
    """A token's public key is remembered by its URI. Here a command plays the token whose key was exchanged."""
    from sconify_tasks.sgx.signer import PemSigner
    from sconify_tasks.signing.choose import ChosenSigner
    from sconify_tasks.signing.location import parse_location
    from sconify_tasks.signing.passphrase import Passphrase

    class Exchanged(ChosenSigner):
        pem = key.pem

        def _open(self):
            return PemSigner.from_file(self.pem)

    with world_of(place, Recorder()) as world:

        def chosen():
            return Exchanged(
                location=parse_location("pkcs11:object=a"),
                public=None,
                passphrase=Passphrase(),
                module="",
                actions=world.actions,
                component_key=world.keys.component_key(),
            )

        first = chosen().mrsigner()
        Exchanged.pem = other_key.pem
        assert chosen().mrsigner() == first, "remembered"
        chosen().signer()
        assert chosen().mrsigner() == mrsigner(load_public(other_key.public))


def test_a_passphrase_is_asked_for_once_a_run_however_many_images_are_signed(native, place, key, monkeypatch):
    asked = []

    def answer(what):
        asked.append(what)
        return PASSPHRASE

    monkeypatch.setattr("sconify_tasks.signing.passphrase.ask", answer)
    with world_of(place, Recorder()) as world:
        orders = [
            Order(
                name=name,
                options=options_for(
                    native, place, to=f"oci:{place.folder}/{name}:1", heap=heap, scone_signer=str(key.encrypted)
                ),
                resources=place.folder / name / "resources",
            )
            for name, heap in (("one", 1 << 20), ("two", 1 << 21), ("three", 1 << 22))
        ]
        assert front.build_all(world, orders, jobs=2, keep_going=False, debug=True).code == 0
    assert asked == [f"the signing key {key.encrypted}"]


def test_a_public_key_that_is_not_the_signers_is_refused(native, place, key, other_key):
    outcome = convert(native, place, scone_signer=str(key.pem), scone_signer_public_key=str(other_key.public))
    assert outcome.code == 2
    assert "is not that of --scone-signer" in outcome.failures["sign"]


def test_a_key_that_lies_in_a_folder_that_is_an_image_is_refused(native, place, key, tmp_path):
    for inside in (native / "keys", place.layout):
        inside.mkdir(exist_ok=True)
        (inside / "signer.pem").write_bytes(key.pem.read_bytes())
        ended = run(place, arguments(native, place, f"--scone-signer={inside}/signer.pem"))
        assert ended.code == 2
        assert "lies inside of" in ended.errors[0]
    (tmp_path / "link.pem").symlink_to(native / "keys" / "signer.pem")
    assert run(place, arguments(native, place, f"--scone-signer={tmp_path}/link.pem")).code == 2


@pytest.mark.parametrize(
    ("given", "said", "code", "message"),
    [
        (["--scone-signer=absent.pem"], {}, 2, "absent.pem can't be read"),
        (["--scone-signer=command:/bin/true"], {}, 2, "needs to come with its public key"),
        (["--scone-signer=pkcs11:object=a?pin-value=738164"], {}, 2, "is not allowed"),
        (["--scone-signer={encrypted}"], {}, 2, "needs a passphrase"),
        (["--scone-signer={encrypted}"], {"SCONIFY_SIGNER_PASSPHRASE": "wrong-738164"}, 2, "can't be decrypted"),
        (["--scone-signer=command:/bin/false", "--scone-signer-public-key={public}"], {}, 3, "failed with exit code 1"),
        (["--scone-signer-public-key={public}"], {}, 2, "means nothing without --scone-signer"),
        (["--scone-signer=command:/bin/echo 738164", "--scone-signer-public-key={public}"], {}, 4, "which is no signature"),
        (["--attest-signer"], {}, 2, "published debug key"),
        ([], {"SCONIFY_SIGNER": "command:"}, 2, "SCONIFY_SIGNER names no signing key"),
    ],
    ids=lambda value: None,
)
def test_what_can_not_sign_is_one_line_and_leaves_no_image(given, said, code, message, native, place, key):  # noqa: PLR0917
    words = [word.format(encrypted=key.encrypted, public=key.public) for word in given]
    script = [str(Path(sys.executable).with_name("sconify_image")), *arguments(native, place, *words)[1:]]
    ended = subprocess.run(
        script,
        env=variables(place, **said),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert ended.returncode == code, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if message in line and line.lower().startswith("error")]
    assert line
    assert "Traceback" not in ended.stderr
    assert "738164" not in ended.stderr
    assert ended.stdout == ""
    assert not (place.layout / "index.json").exists()


def test_the_key_and_its_passphrase_are_in_no_image_no_cache_no_state_and_no_log(native, place, key):
    secrets = [*secrets_of(key), PASSPHRASE.encode()]
    for number, (pem, said) in enumerate(((key.pem, {}), (key.encrypted, {"SCONIFY_SIGNER_PASSPHRASE": PASSPHRASE}))):
        logs = [f"--{kind}={place.folder}/{kind}-{number}" for kind in ("events", "trace")]
        words = arguments(native, place, f"--scone-signer={pem}", f"--heap={number + 1}M", "--verbose", "--debug", *logs)
        ended = run(place, words, env=said)
        assert ended.code == 0, ended.stderr
        assert not [secret for secret in secrets if secret in ended.stderr.encode()]
        assert '"sign"' in (place.folder / f"events-{number}").read_text()
        assert '"sign"' in (place.folder / f"trace-{number}").read_text()
    for path in (*place.folder.rglob("*"), native):
        if path.is_file():
            content = path.read_bytes()
            assert not [path for secret in secrets if secret in content]


def test_a_session_may_admit_the_signer_in_place_of_the_measurement(native, place, key):
    assert convert(native, place, scone_signer=str(key.pem), attest_signer=True, isvprodid=7, isvsvn=3).code == 0
    session = parse_session(place.session.read_text(), name="session")
    (variant,) = session.services[0].variants
    assert variant.mrenclaves == ()
    assert variant.signer is not None
    signer = variant.signer
    assert (signer.mrsigner, signer.isvprodid, signer.isvsvn_min) == (mrsigner(load_public(key.public)), 7, 3)
    assert session.version == "0.3.10"
    assert not re.search("mrenclave", place.session.read_text())
