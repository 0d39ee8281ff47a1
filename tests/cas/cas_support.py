"""Both ends of the CAS's protocols for tests: a server in a process of its own, an enclave's client, sessions."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from sconify_tasks.cas.client import CasClient
from sconify_tasks.cas.identity import Identity, new_identity
from sconify_tasks.cas.service import channel_report_data
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct

PROJECT = Path(__file__).parents[2]
MRENCLAVE = "ab" * 32
LABEL = b"EXPORTER-sconify-attest-1"


def session_text(
    name: str = "ns/app",
    *,
    mrenclave: str = MRENCLAVE,
    tolerate: str = "[debug-mode]",
    mode: str = "hardware",
    env: str = "one",
    access: str = "{read: [CREATOR], update: [CREATOR]}",
    predecessor: str = "",
) -> str:
    link = f"predecessor: {predecessor}\n" if predecessor else ""
    return f"""\
name: {name}
version: "0.3"
{link}access_policy: {access}
services:
  - name: web
    mrenclaves: [{mrenclave}]
    command: "python3 /app/main.py 'two words'"
    environment: {{VALUE: {env}}}
    pwd: /app
    fspf_key: {"01" * 32}
    fspf_tag: {"02" * 16}
    fspf_path: /fspf/fs.fspf
security: {{attestation: {{mode: {mode}, tolerate: {tolerate}}}}}
"""


def sigstruct(mrenclave: str = MRENCLAVE) -> str:
    return build_sigstruct(MrEnclave(mrenclave), debug_signer(), debug=True).hex()


def las_request(report_data: bytes, *, mrenclave: str = MRENCLAVE, signed: str = "") -> dict[str, Any]:
    signed = signed or sigstruct(mrenclave)
    return {"v": 1, "type": "quote", "mrenclave": mrenclave, "sigstruct": signed, "report_data": report_data.hex()}


def send_frame(peer: Any, message: Any) -> None:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    peer.sendall(struct.pack(">I", len(body)) + body)


def receive_exactly(peer: Any, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += peer.recv(length - len(data)) or _closed()
    return data


def _closed() -> bytes:
    raise ConnectionError("closed")


def receive_frame(peer: Any) -> dict[str, Any]:
    (length,) = struct.unpack(">I", receive_exactly(peer, 4))
    return json.loads(receive_exactly(peer, length))


class Enclave:
    """What the runtime does: TLS 1.3, the exporter value, a quote from the LAS bound to it."""

    def __init__(self, running: Server, *, alpn: bytes = b"sconify-cas/1") -> None:
        self.running = running
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        if alpn:
            context.set_alpn_protos([alpn])
        self.socket = socket.create_connection(("127.0.0.1", running.ports["enclave"]))
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_tlsext_host_name(b"cas")
        self.tls.set_connect_state()
        self.tls.do_handshake()
        self.exporter = self.tls.export_keying_material(LABEL, 32, b"")

    def quote(self, *, exporter: bytes | None = None, mrenclave: str = MRENCLAVE) -> str:
        with socket.create_connection(("127.0.0.1", self.running.ports["las"])) as las:
            send_frame(las, las_request(channel_report_data(exporter or self.exporter), mrenclave=mrenclave))
            return receive_frame(las)["quote"]

    def ask(self, config_id: str, quote: str | None) -> dict[str, Any]:
        return self.exchange({"v": 1, "type": "config", "config_id": config_id, "quote": quote})

    def exchange(self, message: Any) -> dict[str, Any]:
        send_frame(self.tls, message)
        return receive_frame(self.tls)

    def close(self) -> None:
        self.tls.shutdown()
        self.socket.close()


@dataclass(slots=True)
class Server:
    """`sconify-cas serve` on loopback, any ports."""

    process: subprocess.Popen[str]
    state: Path
    ports: dict[str, int]
    spki: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['api']}"

    def client(self, identity: Identity | None = None) -> CasClient:
        return CasClient(self.address, identity or new_identity(), self.spki)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    def errors(self) -> str:
        return self.process.stderr.read()


def environment() -> dict[str, str]:
    path = os.pathsep.join(str(PROJECT / part) for part in ("", "cache", "dodo"))
    return {**os.environ, "PYTHONPATH": path}


def start_server(state: Path, *arguments: str) -> Server:
    command = [sys.executable, "-m", "sconify_tasks.cas.cli", "serve", "--state", str(state), "--listen", "127.0.0.1"]
    ports = ["--api-port", "0", "--enclave-port", "0", "--las-port", "0"]
    process = subprocess.Popen(
        [*command, *ports, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A shell starts what runs in the background with SIGINT ignored, and that is inherited all the way down to here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here yet
    )
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(process.stderr.read())
    said = json.loads(line)
    numbers = {name: said[f"{name}_port"] for name in ("api", "enclave", "las") if f"{name}_port" in said}
    return Server(process, state, numbers, said["spki"])


def raw_tls(port: int, identity: Identity, tmp_path: Path) -> ssl.SSLSocket:
    """A client that may send any bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pem = tmp_path / "raw.pem"
    pem.write_text(identity.pem)
    context.load_cert_chain(pem)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=15))


def unbase64(text: str) -> bytes:
    return base64.b64decode(text)
