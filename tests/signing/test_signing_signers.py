"""Every kind of signer signs alike; what they refuse is one line that says what to do and gives nothing away."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sgx import sdm
from signing.keys import MODULE, PASSPHRASE, PIN

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.signer import MAKE_KEY, PemSigner
from sconify_tasks.sgx.sigstruct import build_sigstruct, mrsigner
from sconify_tasks.signing.command import CommandSigner
from sconify_tasks.signing.location import parse_location
from sconify_tasks.signing.passphrase import Passphrase
from sconify_tasks.signing.public import load_public

MRENCLAVE = MrEnclave("5a" * 32)


def token_signer(token, *, uri=None, pin=PIN, module=""):
    from sconify_tasks.signing.pkcs11 import TokenSigner

    location = parse_location(uri or token.uri)
    return TokenSigner(token=location, module=module or location.module or MODULE, pin=lambda what: pin.encode())


def openssl_signer(need, key, **more):
    words = (need("openssl"), "dgst", "-sha256", "-sign", str(key.pem))
    return CommandSigner(words=words, modulus=load_public(key.public), **more)


def shell(script, modulus, **more):
    return CommandSigner(words=("/bin/sh", "-c", script), modulus=modulus, **more)


def test_a_file_a_token_and_a_command_with_the_same_key_make_the_same_signature(need, key, token):
    signers = [PemSigner.from_file(key.pem), token_signer(token), openssl_signer(need, key)]
    first, *others = [build_sigstruct(MRENCLAVE, signer, debug=False, isv_svn=7) for signer in signers]
    assert others == [first, first]
    assert sdm.einit(first, MRENCLAVE) == mrsigner(load_public(key.public))


class TestPassphrase:
    def test_is_read_from_a_file_or_the_environment_and_asked_for_only_where_the_key_is_encrypted(self, key, tmp_path):
        (tmp_path / "pass").write_text(PASSPHRASE + "\nsecond line\n")
        for passphrase in (
            Passphrase(file=tmp_path / "pass"),
            Passphrase(given=PASSPHRASE),
            Passphrase(prompt=lambda what: PASSPHRASE),
        ):
            assert PemSigner.from_file(key.encrypted, passphrase=passphrase).modulus == load_public(key.public)

        def never(what):
            raise AssertionError(what)

        PemSigner.from_file(key.pem, passphrase=Passphrase(prompt=never))

    @pytest.mark.parametrize("wrong", ["wrong-one-7351", "", "\udcff", "x" * 5000])
    def test_a_wrong_one_is_one_line_that_does_not_repeat_it(self, wrong, key):
        with pytest.raises(UsageError) as refusal:
            PemSigner.from_file(key.encrypted, passphrase=Passphrase(given=wrong))
        assert "7351" not in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert "passphrase is wrong" in refusal.value.hint
        assert "7351" not in repr(Passphrase(given="wrong-one-7351"))

    def test_without_a_terminal_the_ways_to_say_it_are_named(self, key):
        with pytest.raises(UsageError, match="needs a passphrase") as refusal:
            PemSigner.from_file(key.encrypted, passphrase=Passphrase(prompt=lambda what: None))
        assert "SCONIFY_SIGNER_PASSPHRASE" in refusal.value.hint
        assert "--scone-signer-passphrase-file" in refusal.value.hint

    def test_a_file_of_it_that_is_not_there_is_named(self, key, tmp_path):
        with pytest.raises(UsageError, match=r"nowhere can't be read: No such file"):
            PemSigner.from_file(key.encrypted, passphrase=Passphrase(file=tmp_path / "nowhere"))

    def test_it_is_asked_for_on_the_terminal_without_an_echo(self, key):
        script = (
            "from pathlib import Path; from sconify_tasks.sgx.signer import PemSigner\n"
            "from sconify_tasks.signing.passphrase import Passphrase\n"
            f"PemSigner.from_file(Path({str(key.encrypted)!r}), passphrase=Passphrase()); print('opened')"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", script])
        shown = read_until(terminal, b": ")
        os.write(terminal, PASSPHRASE.encode() + b"\n")
        shown += read_until(terminal, b"opened")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(terminal)
        assert f"passphrase of the signing key {key.encrypted}".encode() in shown
        assert PASSPHRASE.encode() not in shown

    def test_a_process_without_a_terminal_does_not_hang(self, key):
        script = "from sconify_tasks.signing.passphrase import ask; print(ask('the key'))"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            start_new_session=True,
            check=True,
        )
        assert ended.stdout == "None\n"


def read_until(terminal, mark):
    shown, deadline = b"", time.monotonic() + 30
    while mark not in shown and time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 1000)
        except OSError:
            break
    return shown


class TestCommand:
    @pytest.mark.parametrize(
        ("script", "error", "reason"),
        [
            ("exit 3", UnavailableError, "failed with exit code 3"),
            ("echo garbage", EnclaveError, "printed 8 bytes, which is no signature"),
            ("true", EnclaveError, "printed 0 bytes"),
            ("cat /dev/zero", EnclaveError, "printed more than 384 bytes"),
            ("head -c 384 /dev/zero", EnclaveError, "what the signer returned is refused"),
            ("head -c 384 /dev/zero | tr '\\0' '\\377'", EnclaveError, "no signature of its key"),
        ],
    )
    def test_what_is_no_signature_is_refused(self, script, error, reason, key):
        with pytest.raises(error, match=reason) as refusal:
            build_sigstruct(MRENCLAVE, shell(script, load_public(key.public)), debug=False)
        assert "\n" not in str(refusal.value)

    def test_a_signature_of_another_key_is_refused(self, need, key, other_key):
        signer = CommandSigner(words=openssl_signer(need, other_key).words, modulus=load_public(key.public))
        # As a number it may even be too large for this key's modulus.
        with pytest.raises(EnclaveError, match=r"is refused|no signature of its key"):
            build_sigstruct(MRENCLAVE, signer, debug=False)

    @pytest.mark.parametrize("script", ["sleep 600", "exec >&-; sleep 600", "sleep 600 & exit 0", "trap '' TERM; sleep 600"])
    def test_one_that_hangs_is_ended_with_all_that_it_started(self, script, key, tmp_path):
        ready = tmp_path / "pid"
        marked = f"echo $$ > {tmp_path}/writing; mv {tmp_path}/writing {ready}; {script}"
        # However slow the machine is, one of these is long enough for the command to have begun.
        for seconds in (0.5, 2, 8, 32):
            with pytest.raises((UnavailableError, EnclaveError)):
                build_sigstruct(MRENCLAVE, shell(marked, load_public(key.public), seconds=seconds), debug=False)
            if ready.exists():
                break
        group = int(ready.read_text())
        # Killed is not yet gone: what the command left is nobody's child, and ends when the kernel comes to it.
        deadline = time.monotonic() + 60
        while running_in(group) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running_in(group) == []

    def test_one_that_does_not_exist_is_named(self, key):
        signer = CommandSigner(words=("/nowhere/sign",), modulus=load_public(key.public))
        with pytest.raises(UnavailableError, match=r"/nowhere/sign can't run: No such file"):
            signer.sign(b"")

    def test_it_gets_the_data_and_nothing_of_the_shell(self, key, tmp_path):
        words = ("/bin/sh", "-c", f'cat > {tmp_path}/data; printf %s "$1" > {tmp_path}/word', "sh", "$(touch /x) ; *")
        with pytest.raises(EnclaveError):
            CommandSigner(words=words, modulus=load_public(key.public)).sign(b"data" * 64)
        assert (tmp_path / "data").read_bytes() == b"data" * 64
        assert (tmp_path / "word").read_text() == "$(touch /x) ; *"


def running_in(group):
    return [path for path in Path("/proc").glob("[0-9]*/stat") if group_of(path) == group]


def group_of(stat):
    """The process group in /proc/PID/stat, of processes that still run."""
    try:
        state, _, group = stat.read_text().rpartition(") ")[2].split()[:3]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else int(group)


class TestToken:
    def test_shows_its_public_key_without_a_pin(self, key, token):
        assert token_signer(token, pin="never asked for").modulus == load_public(key.public)

    def test_a_wrong_pin_is_one_line_that_does_not_repeat_it(self, token):
        with pytest.raises(UsageError, match="refuses the PIN") as refusal:
            token_signer(token, pin="98765").sign(b"")
        assert "98765" not in str(refusal.value)

    def test_the_pin_may_come_from_the_file_that_the_uri_names(self, token, tmp_path):
        (tmp_path / "pin").write_text(PIN + "\n")
        uri = f"{token.uri}&pin-source=file:{tmp_path}/pin"
        assert len(token_signer(token, uri=uri, pin="never asked for").sign(b"data")) == 384

    @pytest.mark.parametrize(
        ("uri", "error", "reason"),
        [
            ("pkcs11:token=absent;object=signer", UnavailableError, "no token fits"),
            ("pkcs11:token=sconify;object=absent", UsageError, "has no RSA key"),
            ("pkcs11:token=sconify;object=signer;id=%00", UsageError, "has no RSA key"),
            ("pkcs11:object=signer?module-path=/nowhere.so", UnavailableError, "module /nowhere.so can't be loaded"),
        ],
    )
    def test_what_is_not_there_is_named(self, uri, error, reason, token):
        with pytest.raises(error, match=reason):
            token_signer(token, uri=uri).modulus  # noqa: B018 - the question is what is tested

    def test_signs_for_many_steps_at_once(self, key, token):
        with ThreadPoolExecutor(4) as pool:
            signed = list(pool.map(lambda number: token_signer(token).sign(b"data"), range(12)))
        assert set(signed) == {PemSigner.from_file(key.pem).sign(b"data")}

    def test_the_key_is_found_by_its_id_too(self, key, token):
        assert token_signer(token, uri="pkcs11:id=%a1").modulus == load_public(key.public)


class TestPublicKey:
    def test_a_private_key_in_its_place_is_refused_with_the_command_that_makes_a_public_one(self, key):
        with pytest.raises(UsageError, match="is a private key") as refusal:
            load_public(key.pem)
        assert "-pubout" in refusal.value.hint

    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
    def test_what_is_no_key_is_refused(self, content, tmp_path):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(UsageError, match="no public key in PEM form"):
            load_public(tmp_path / "key")

    @pytest.mark.parametrize("bits", ["2048", "3072"])
    def test_another_size_or_exponent_is_refused_with_the_command_that_makes_the_right_one(self, bits, need, tmp_path):
        subprocess.run([need("openssl"), "genrsa", "-out", tmp_path / "k", bits], check=True, capture_output=True)
        subprocess.run([need("openssl"), "pkey", "-in", tmp_path / "k", "-pubout", "-out", tmp_path / "p"], check=True)
        with pytest.raises(UsageError, match=f"RSA-{bits} with exponent 65537") as refusal:
            load_public(tmp_path / "p")
        assert refusal.value.hint == MAKE_KEY
