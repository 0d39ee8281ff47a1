# ruff: noqa: T201
"""A server and a client in one process, with what a script imports."""

import asyncio  # noqa: F401
import hashlib
import http.server
import json
import sqlite3
import ssl
import threading
import urllib.request
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(Path("/app/secret.txt").read_bytes())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
body = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}").read().decode()
found = sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0]
print(json.dumps({"secret": body.strip(), "sha": hashlib.sha256(b"x").hexdigest()[:4], "sql": found, "tls": ssl.HAS_TLSv1_3}))
