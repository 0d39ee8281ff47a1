"""One request to a FastCGI responder (FastCGI specification 1.0, sections 3.3 and 5.1)."""

from __future__ import annotations

import socket
import struct
from contextlib import closing

_BEGIN, _PARAMS, _STDIN, _STDOUT = 1, 4, 5, 6


def ask(port: int, script: str, patience: float) -> str:
    """Return what `script` answers, with its headers."""
    parameters = {"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET"}
    pairs = b"".join(bytes((len(name), len(value))) + name.encode() + value.encode() for name, value in parameters.items())
    begin = struct.pack(">HB5x", 1, 0)
    request = [(_BEGIN, begin), (_PARAMS, pairs), (_PARAMS, b""), (_STDIN, b"")]
    with closing(socket.create_connection(("127.0.0.1", port), patience)) as client:
        client.sendall(b"".join(struct.pack(">BBHHBx", 1, kind, 1, len(body), 0) + body for kind, body in request))
        stream, out = client.makefile("rb"), b""
        while head := stream.read(8):
            _, kind, _, length, padding = struct.unpack(">BBHHBx", head)
            body = stream.read(length + padding)[:length]
            out += body if kind == _STDOUT else b""
    return out.decode()
