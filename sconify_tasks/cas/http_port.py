"""HTTP/1.1 for the client API, with what Twisted leaves open closed: body limit, total deadlines, oversized headers.

A client is the key that its connection has proved. No header ever says who somebody is.
"""

# mypy: disable-error-code="no-untyped-call,override,assignment,method-assign,misc"
# Twisted is typed in part: its transports are interfaces that mypy can't follow.

from __future__ import annotations

import io
import json
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from sconify_tasks.cas.api import MAX_BODY, ApiCall, Reply, answer, refusal
from sconify_tasks.cas.identity import certificate_spki_hash
from sconify_tasks.cas.ports import FAREWELL_SECONDS, Deadline, Work
from sconify_tasks.cas.service import CasService


class ApiRequest(http.Request):
    """One request, collected in memory (never in a temporary file: sessions hold keys) and carried out on a thread."""

    channel: ApiChannel
    content: Any

    def __init__(self, channel: ApiChannel, _queued: object = None) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self._received = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Refuse a body that says it is too long, before it comes."""
        self.content = io.BytesIO()
        if length is not None and length > MAX_BODY:
            self.channel.refuse(_too_large())

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Refuse a body that turns out too long (chunked ones say no length)."""
        self._received += len(data)
        if self._received > MAX_BODY:
            self.channel.refuse(_too_large())
        else:
            self.content.write(data)

    def process(self) -> None:
        """Hand the request to the API."""
        if self.channel.refused:
            return
        call = ApiCall(
            method=self.method.decode("ascii", "replace"),
            path=self.path.decode("ascii", "replace"),
            digest=(self.args or {}).get(b"hash", [b""])[0].decode("ascii", "replace"),
            body=self.content.read(),
            client=self.channel.client,
        )
        self.channel.work.run(answer, self.channel.service, call).addCallbacks(self._reply, self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self._disconnected:
            self.channel.work.bug(failure)
            self._reply(refusal(500, "the CAS failed to answer", "its log says why"))

    def _reply(self, reply: Reply) -> None:
        if self._disconnected:
            return
        body = json.dumps(reply.value).encode() + b"\n"
        self.setResponseCode(reply.status)
        self.responseHeaders.setRawHeaders(b"content-type", [b"application/json"])
        self.responseHeaders.setRawHeaders(b"content-length", [str(len(body)).encode()])
        self.write(body)
        self.finish()


class ApiChannel(http.HTTPChannel):
    """One connection."""

    transport: Any
    requestFactory = ApiRequest  # noqa: N815 - Twisted's name
    totalHeadersSize = 8192  # noqa: N815 - Twisted's name
    maxHeaders = 50  # noqa: N815 - Twisted's name
    timeOut = None  # noqa: N815 - Twisted's idle timer starts anew with every byte: `Deadline` does not

    def __init__(self, work: Work, service: CasService) -> None:
        super().__init__()
        self.work = work
        self.service = service
        self.client = ""
        self.refused = False
        self._deadline = Deadline(work, self._abort)

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Start counting."""
        super().connectionMade()
        self._deadline.start()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """Stop counting."""
        self._deadline.stop()
        super().connectionLost(reason)

    def _abort(self) -> None:
        self.transport.abortConnection()

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        """Stop counting: it is our turn."""
        if self.refused:
            return
        self._deadline.stop()
        if not self.client:
            try:
                self.client = _client(self.transport)
            except ValueError:
                self.refuse(refusal(400, "the client's certificate has a key of an unknown kind", "use a P-256 key"))
                return
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's name
        """Count again: it is the client's turn to read the reply, and to send the next request."""
        super().requestDone(request)
        self._deadline.start()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802 - Twisted's signature
        """Refuse one line that is too long."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        # Twisted hangs up politely here, which a peer that goes on sending can prolong for ever.
        self.refuse(refusal(400, "the request is malformed, or its headers are too large"))

    def refuse(self, reply: Reply) -> None:
        """Answer without having read the whole request; then read nothing more, and hang up soon."""
        if self.refused:
            return
        self.refused = True
        body = json.dumps(reply.value).encode() + b"\n"
        headers = f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"HTTP/1.1 {reply.status} Refused\r\n{headers}\r\n".encode() + body)
        self.paused = True
        self.transport.pauseProducing()
        self._deadline.start(FAREWELL_SECONDS)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Nothing is read after a refusal."""
        if not self.refused:
            super().dataReceived(data)


class ApiFactory(http.HTTPFactory):
    """Makes one channel a connection. It logs no requests: their lines hold session names."""

    noisy = False

    def __init__(self, work: Work, service: CasService) -> None:
        super().__init__(reactor=work.reactor)
        self._work = work
        self._service = service

    def startFactory(self) -> None:  # noqa: N802 - Twisted's name
        """Nothing to open."""

    def stopFactory(self) -> None:  # noqa: N802 - Twisted's name
        """Nothing to close."""

    def buildProtocol(self, addr: IAddress) -> Any:  # noqa: ARG002, N802 - Twisted's signature
        """One connection."""
        channel = ApiChannel(self._work, self._service)
        channel.factory = self
        channel.callLater = self._work.reactor.callLater
        return channel

    def log(self, request: Any) -> None:
        """No log of requests."""


def _client(transport: Any) -> str:
    """Hash the key that the connection proved, from the connection itself."""
    certificate = transport.getPeerCertificate()
    if certificate is None:
        raise ValueError("no client certificate")
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate_spki_hash(certificate.to_cryptography().public_bytes(Encoding.DER))


def _too_large() -> Reply:
    return refusal(413, f"the body is larger than {MAX_BODY} bytes")
