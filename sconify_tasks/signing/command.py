"""A program that signs: it gets the data on stdin and gives the signature on stdout, 384 bytes big-endian. No shell."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress

from msgspec import Struct

from sconify_tasks.errors import UnavailableError
from sconify_tasks.sgx.measurement import EnclaveError
from sconify_tasks.sgx.signer import KEY_BITS

SECONDS = 120
_SIZE = KEY_BITS // 8
_HINT = "it gets the data on stdin and writes the signature (RSASSA-PKCS1-v1_5, SHA-256, 384 bytes) to stdout"


class CommandSigner(Struct, frozen=True, kw_only=True):
    """Runs the program once a signature. What it prints on stderr is the user's to see."""

    words: tuple[str, ...]
    modulus: int
    seconds: float = SECONDS

    def sign(self, data: bytes) -> bytes:
        """UnavailableError where the program can't run, fails or hangs; EnclaveError where it prints no signature."""
        program = self.words[0]
        try:
            process = subprocess.Popen(
                self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its name or an argument can't be one"
            raise UnavailableError(f"the signing command {program} can't run: {reason}", hint="look at its path") from error
        try:
            answer = _exchange(process, data, time.monotonic() + self.seconds)
            if answer is None:
                raise UnavailableError(
                    f"the signing command {program} gave no answer in {self.seconds:g} seconds", hint="look at the program"
                )
        finally:
            _end(process)
        if process.returncode and len(answer) <= _SIZE:
            raise UnavailableError(f"the signing command {program} failed with exit code {process.returncode}", hint=_HINT)
        if len(answer) != _SIZE:
            size = f"{len(answer)} bytes" if len(answer) < _SIZE else f"more than {_SIZE} bytes"
            raise EnclaveError("signature", f"the signing command {program} printed {size}, which is no signature", hint=_HINT)
        return answer


def _exchange(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> bytes | None:
    """Write the data, read at most one byte more than a signature has; None when the deadline passes first."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin:  # 256 bytes fit in the pipe: this never waits
        process.stdin.write(data)
    answer = b""
    with selectors.DefaultSelector() as selector, process.stdout:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(answer) <= _SIZE:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            block = os.read(process.stdout.fileno(), _SIZE + 1 - len(answer))
            if not block:
                break
            answer += block
    with suppress(subprocess.TimeoutExpired):
        process.wait(1 if len(answer) > _SIZE else max(0.0, deadline - time.monotonic()))
        return answer
    return answer if len(answer) > _SIZE else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program, and whatever it started and left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
