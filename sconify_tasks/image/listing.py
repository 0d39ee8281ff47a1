"""What a local engine has, by one request each and with the standard library alone.

Importing the SDK takes longer than a whole run that finds nothing to do.

Where it can't answer (another transport, an error, something missing), the SDK is asked, which has the words for it.
"""

from __future__ import annotations

import json
import socket
from struct import Struct
from typing import Any

_SECONDS = 30
_LARGEST = 64 << 20
_LOCAL = "unix:///var/run/docker.sock"
# HTTP/1.0: the answer is one piece that ends with the connection (RFC 1945).
_REQUEST = "GET {} HTTP/1.0\r\nHost: engine\r\n\r\n"
_CREDENTIALS = Struct("3i")  # struct ucred, unix(7)
_SHIFTING = ("name=userns", "name=rootless")


def list_images(docker_host: str) -> dict[str, str] | None:
    """The engine's Id of every tagged image, by familiar name; None where this way of asking gives no answer."""
    return _parse(_get(docker_host, "/images/json"))


def inspect_image(docker_host: str, name: str) -> dict[str, Any] | None:
    """What the engine says of an image; None where this way of asking gives no answer, or there is none."""
    from urllib.parse import quote

    found = _get(docker_host, f"/images/{quote(name, safe='/:@')}/json")
    return found if isinstance(found, dict) and isinstance(found.get("Id"), str) else None


def keeps_owners(docker_host: str) -> bool:
    """Whether it is a local engine of root's whose files have the owners that they have in their image.

    With userns-remap, or rootless, they have others.
    """
    found = _get(docker_host, "/info", peer=0)
    options = found.get("SecurityOptions") if isinstance(found, dict) else None
    return isinstance(options, list) and not any(shift in str(option) for option in options for shift in _SHIFTING)


def _get(docker_host: str, path: str, *, peer: int | None = None) -> Any:
    """The answer to a GET; None where there is none, or where not user `peer` listens."""
    host = docker_host or _LOCAL
    if not host.startswith("unix://"):
        return None
    try:
        head, _, body = _ask(host.removeprefix("unix://"), path, peer).partition(b"\r\n\r\n")
        return json.loads(body) if head.split(b" ", 2)[1:2] == [b"200"] else None
    except (OSError, ValueError, RecursionError):
        return None


def _ask(socket_path: str, path: str, peer: int | None) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
        engine.settimeout(_SECONDS)
        engine.connect(socket_path)
        _, user, _ = _CREDENTIALS.unpack(engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if peer not in (None, user):
            return b""
        engine.sendall(_REQUEST.format(path).encode())
        answer = bytearray()
        while len(answer) < _LARGEST and (piece := engine.recv(1 << 16)):
            answer += piece
    return bytes(answer)


def _parse(images: Any) -> dict[str, str] | None:
    if not isinstance(images, list):
        return None
    found: dict[str, str] = {}
    for image in images:
        if not isinstance(image, dict) or not isinstance(image.get("Id"), str):
            return None
        found |= {str(tag): image["Id"] for tag in image.get("RepoTags") or []}
    return found
