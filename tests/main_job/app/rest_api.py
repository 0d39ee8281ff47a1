"""A small HTTP API over protected files."""

# ruff: noqa: T201

import hashlib
import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/sign/"):
            key = Path("/tls/api.key").read_bytes()
            return self.answer({"hmac": hmac.new(key, self.path.removeprefix("/sign/").encode(), hashlib.sha256).hexdigest()})
        return self.answer(
            {"greeting": Path("/app/greeting.txt").read_text(), "mode": os.environ.get("API_MODE"), "uid": os.getuid()}
        )

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("API_PORT", "0"))), Api)
    print(f"STARTED {server.server_port}", flush=True)
    server.serve_forever()
