"""A CAS and a LAS of a few lines: they speak the frames of docs/formats.md section 8 and check the binding of the channel."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

ALPN = b"sconify-cas/1"
LABEL = b"EXPORTER-sconify-attest-1"


def _take(read: Callable[[int], bytes]) -> dict[str, Any]:
    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = read(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    (length,) = struct.unpack(">I", exactly(4))
    return json.loads(exactly(length))


def _frame(value: dict[str, Any]) -> bytes:
    body = json.dumps(value).encode()
    return struct.pack(">I", len(body)) + body


class FakeLas(threading.Thread):
    """Gives back what it was asked for as the quote, so that the CAS can look at it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.requests: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                request = _take(connection.recv)
                self.requests.append(request)
                quote = base64.b64encode(json.dumps(request).encode()).decode()
                connection.sendall(_frame({"v": 1, "quote": quote}))


class FakeCas(threading.Thread):
    """Answers `service`, or the refusal, to whoever binds its quote to the channel."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CAS")])
        now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=1))  # long over: dates are not used
            .sign(key, hashes.SHA256())
        )
        public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.spki = hashlib.sha256(public).hexdigest()
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.set_min_proto_version(SSL.TLS1_3_VERSION)
        self.context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        self.context.use_certificate(crypto.X509.from_cryptography(certificate))
        self.context.set_alpn_select_callback(lambda _, offered: ALPN if ALPN in offered else b"")
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.service: dict[str, Any] = {}
        self.refusal: dict[str, str] | None = None
        self.requests: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                raw, _ = self.socket.accept()
            except OSError:
                return
            connection = SSL.Connection(self.context, raw)
            connection.set_accept_state()
            try:
                connection.do_handshake()
                connection.sendall(_frame(self._answer(connection, _take(connection.recv))))
                connection.shutdown()
            except (SSL.Error, ConnectionError):
                pass
            finally:
                raw.close()

    def _answer(self, connection: SSL.Connection, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        if self.refusal:
            return {"v": 1, "error": self.refusal}
        if request["quote"] is None:
            return {"v": 1, "error": {"code": "quote-required", "message": "the session asks for a quote"}}
        exported = connection.export_keying_material(LABEL, 32, b"")
        bound = hashlib.sha256(b"sconify/attest/1" + exported).hexdigest() + "00" * 32
        try:
            quoted = json.loads(base64.b64decode(request["quote"]))["report_data"]
        except ValueError:
            return {"v": 1, "error": {"code": "bad-quote", "message": "a quote of another LAS"}}
        if quoted != bound:
            return {"v": 1, "error": {"code": "channel-binding", "message": "the quote is for another channel"}}
        return {"v": 1, "session": {"name": "ns/test", "hash": "00" * 32}, "service": self.service}
