"""The ports that speak frames: enclaves (over TLS) and the LAS (over TCP). One request at a time on each connection."""

# mypy: disable-error-code="no-untyped-call,override,assignment,method-assign,misc"
# Twisted is typed in part: its transports are interfaces that mypy can't follow.

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from sconify_tasks.cas.frames import RefusedError, decode_body, encode_frame, error_frame, expect, printable
from sconify_tasks.cas.las import answer_quote
from sconify_tasks.cas.ports import FAREWELL_SECONDS, Deadline, Work
from sconify_tasks.cas.service import EXPORTER_LABEL, EXPORTER_LENGTH, CasService
from sconify_tasks.cas.tls import ENCLAVE_ALPN
from sconify_tasks.errors import SconifyError
from sconify_tasks.sgx.platform import SimulatedPlatform
from sconify_tasks.sgx.quote import MAX_LENGTH as MAX_QUOTE

Answer = Callable[[Mapping[str, Any], Protocol], Callable[[], dict[str, Any]]]


class FrameProtocol(Int32StringReceiver):
    """Frames in, frames out."""

    # The format allows 1 MiB; no request that means anything comes near this, and every connection may hold that much.
    MAX_LENGTH = 2 * MAX_QUOTE
    transport: Any

    def __init__(self, work: Work, answer: Answer) -> None:
        self._work = work
        self._answer = answer
        self._deadline = Deadline(work, self._abort)
        self._lost = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Start counting."""
        self._deadline.start()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - Twisted's signature
        """Stop counting."""
        self._lost = True
        self._deadline.stop()

    def _abort(self) -> None:
        self.transport.abortConnection()

    def stringReceived(self, string: bytes) -> None:  # noqa: N802 - Twisted's name
        """Carry out one request; nothing more is read from the peer before it is answered."""
        self._deadline.stop()
        self.pauseProducing()
        try:
            job = self._answer(decode_body(string), self)
        except RefusedError as error:
            self._refuse(error)
            return
        self._work.run(_carry_out, job).addCallbacks(self._reply, self._failed)

    def lengthLimitExceeded(self, length: int) -> None:  # noqa: N802 - Twisted's name
        """Refuse a frame that says it is too long; what follows it is not read."""
        self._deadline.stop()
        self.pauseProducing()
        self._refuse(RefusedError(f"a frame of {length} bytes where {self.MAX_LENGTH} are allowed", code="bad-request"))

    def _reply(self, frame: bytes | RefusedError) -> None:
        if self._lost:
            return
        if isinstance(frame, RefusedError):
            self._work.log(f"refused {self.transport.getPeer().host}: {frame.code}: {printable(frame.message)[:400]}")
            frame = error_frame(frame)
        self.transport.write(frame)
        self._deadline.start()
        self.resumeProducing()

    def _refuse(self, error: RefusedError) -> None:
        # The peer does not speak our language: say so and hang up, even if it never reads.
        self.transport.write(error_frame(error))
        self._deadline.start(FAREWELL_SECONDS)
        self.transport.loseConnection()

    def _failed(self, failure: Failure) -> None:
        self._work.bug(failure)
        self._refuse(RefusedError("the CAS failed to answer; its log says why", code="internal"))


def _carry_out(job: Callable[[], dict[str, Any]]) -> bytes | RefusedError:
    try:
        return encode_frame(job())
    except RefusedError as error:
        return error
    except SconifyError as error:  # the store: what it says is for the CAS's owner
        return RefusedError(error.message, code="internal")


class FrameFactory(Factory):
    """Makes one protocol a connection."""

    noisy = False

    def __init__(self, work: Work, answer: Answer) -> None:
        self._work = work
        self._answer = answer

    def buildProtocol(self, addr: IAddress) -> Protocol:  # noqa: ARG002, N802 - Twisted's signature
        """One connection."""
        return FrameProtocol(self._work, self._answer)


def las_answer(platform: SimulatedPlatform) -> Answer:
    """Answer `quote` requests."""
    return lambda request, _: lambda: answer_quote(platform, request)


def enclave_answer(service: CasService) -> Answer:
    """Answer `config` requests. The exporter value is taken from the connection that the request came over."""

    def answer(request: Mapping[str, Any], connection: Protocol) -> Callable[[], dict[str, Any]]:
        transport: Any = connection.transport
        if transport.negotiatedProtocol != ENCLAVE_ALPN:
            raise RefusedError(f"this port speaks {ENCLAVE_ALPN.decode()} (ALPN) only", code="bad-request")
        expect(request, "config", ("config_id", "quote"))
        config_id, quote = request["config_id"], _quote(request["quote"])
        if not isinstance(config_id, str):
            raise RefusedError("config_id is not a string", code="bad-request")
        exporter = transport.getHandle().export_keying_material(EXPORTER_LABEL, EXPORTER_LENGTH, b"")
        return lambda: service.service_config(config_id, quote, exporter)

    return answer


def _quote(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY301, TRY004
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise RefusedError("quote is neither null nor base64", code="bad-request") from None
