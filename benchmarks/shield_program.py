"""What is measured inside the container: the same file in the native image and in the shielded one. It prints one JSON object.

With the arguments `serve PORT` it is an HTTP server: `/plain` answers at once, `/file` opens and reads a protected file first.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROTECTED = "/app/data/small.txt"
LARGE = "/app/data/large.bin"
AUTHENTICATED = "/usr/lib/python3.11/this.py"
UNPROTECTED = "/srv/public/small.txt"
ROUNDS = 4000


class Handler(BaseHTTPRequestHandler):
    """Answers on connections that stay open."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Send answers at once: head and body are two writes."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        """Answer 64 bytes, of the protected file where the path says so."""
        body = b"x" * 64
        if self.path == "/file":
            with open(PROTECTED, "rb") as file:  # noqa: PTH123
                body = file.read()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def each(call: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Time every call of many, in microseconds."""
    clock = time.perf_counter_ns
    samples = []
    for _ in range(rounds // 10):
        call()
    for _ in range(rounds):
        begun = clock()
        call()
        samples.append((clock() - begun) / 1000)
    return samples


def opened(path: str) -> Callable[[], None]:
    """A call that opens and closes."""
    return lambda: os.close(os.open(path, os.O_RDONLY))


def first(path: str) -> list[float]:
    """Milliseconds of a first open, in which a protected file is read and verified as a whole, and of reading it after."""
    begun = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    opened_at = time.perf_counter()
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)
    return [(opened_at - begun) * 1000, (time.perf_counter() - opened_at) * 1000]


def measure() -> dict[str, list[float]]:
    """All figures of calls."""
    fd = os.open(PROTECTED, os.O_RDONLY)
    return {
        "first open of 100 MB": first(LARGE),
        "open+close, protected": each(opened(PROTECTED)),
        "open+close, authenticated": each(opened(AUTHENTICATED)),
        "open+close, unprotected": each(opened(UNPROTECTED)),
        "stat, protected": each(lambda: os.stat(PROTECTED)),  # noqa: PTH116
        "stat, authenticated": each(lambda: os.stat(AUTHENTICATED)),  # noqa: PTH116
        "stat, unprotected": each(lambda: os.stat(UNPROTECTED)),  # noqa: PTH116
        "fstat, protected": each(lambda: os.fstat(fd)),
        "pread 64 B, protected": each(lambda: os.pread(fd, 64, 0)),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler).serve_forever()
    json.dump(measure(), sys.stdout)
