"""A small HTTP API. It reads a key and a certificate from files, and answers with facts about them, never with the key."""

import hashlib
import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = Path("/tls/api.key")
CERTIFICATE = Path("/tls/api.crt")


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            return self.answer({"message": Path("/app/greeting.txt").read_text().strip(), "mode": os.environ.get("API_MODE")})
        if self.path == "/certificate":
            return self.answer({"sha256": hashlib.sha256(CERTIFICATE.read_bytes()).hexdigest()})
        if self.path.startswith("/sign/"):
            mac = hmac.new(KEY.read_bytes(), self.path[len("/sign/") :].encode(), "sha256")
            return self.answer({"hmac": mac.hexdigest()})
        return self.answer({"error": "not found"}, status=404)

    def answer(self, value, status=200):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    port = int(os.environ.get("API_PORT", "8080"))
    print(f"serving on {port}", flush=True)
    ThreadingHTTPServer(("0.0.0.0", port), Api).serve_forever()
