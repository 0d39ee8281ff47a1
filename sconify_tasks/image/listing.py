"""What an engine has, by one request and with the standard library alone.

Importing the SDK takes longer than a whole run that finds nothing to do.

It serves to skip work, never to do any: where it can't answer (another transport, an error), the SDK is asked.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote

_SECONDS = 30
_LARGEST = 64 << 20
_LOCAL = "unix:///var/run/docker.sock"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def list_images(docker_host: str) -> dict[str, str] | None:
    """The engine's Id of every tagged image, by familiar name; None where this way of asking gives no answer."""
    host = docker_host or _LOCAL
    if not host.startswith("unix://"):
        return None
    connection = _UnixConnection(host.removeprefix("unix://"))
    try:
        connection.request("GET", quote("/images/json"))
        answer = connection.getresponse()
        body = answer.read(_LARGEST)
        return _parse(json.loads(body)) if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()


def _parse(images: Any) -> dict[str, str] | None:
    if not isinstance(images, list):
        return None
    found: dict[str, str] = {}
    for image in images:
        if not isinstance(image, dict) or not isinstance(image.get("Id"), str):
            return None
        found |= {str(tag): image["Id"] for tag in image.get("RepoTags") or []}
    return found
