"""From an engine and into it: a run that finds nothing to do asks it once, and not more."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from build.small_image import Place
from cli.commands import Ended
from settled.test_nothing_to_do import ran, run
from settled.watched import planned

LISTING = "GET /images/json HTTP/1.0"
PROJECT = """\
version: 1
project: shop
defaults: {base: scratch, binary: /bin/prog, dir: [/app], allow-debug-mode: true, disable-pie-check: true}
images:
  api: {from: NATIVE, to: "docker:FIRST"}
  web: {from: "docker:NATIVE", to: "docker:SECOND", env: [A=1]}
"""


@dataclass
class Heard:
    """A socket before the engine's, and the first line of what each connection asked."""

    host: str
    lines: list[str] = field(default_factory=list)


@pytest.fixture
def heard(engine, tmp_path: Path) -> Iterator[Heard]:
    path = tmp_path / "engine.sock"
    found = Heard(host=f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    client, _ = listener.accept()
                    there = socket.socket(socket.AF_UNIX)
                    there.connect(engine.host.removeprefix("unix://"))
                    threading.Thread(target=hand_on, args=(client, there, found.lines), daemon=True).start()
                    threading.Thread(target=hand_on, args=(there, client, None), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)


def hand_on(one: socket.socket, other: socket.socket, lines: list[str] | None) -> None:
    with suppress(OSError):
        while piece := one.recv(1 << 16):
            if lines is not None:
                lines.append(piece.split(b"\r\n")[0].decode("latin-1"))
                lines = None
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)


@pytest.fixture
def targets(engine, native: Path, place: Place) -> tuple[str, str]:
    """A project from the engine and into it, and the names that its images get there."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(native, arcname=".")
    source = engine.import_rootfs(tar.getvalue(), changes=['CMD ["/bin/prog"]'])
    names = engine.name("first"), engine.name("second")
    text = PROJECT.replace("NATIVE", source).replace("FIRST", names[0]).replace("SECOND", names[1])
    (place.folder / "sconify.yaml").write_text(text)
    return names


def settle(place: Place, heard: Heard) -> Ended:
    """Build until no plan is made any more."""
    for _ in range(4):
        heard.lines.clear()
        ended = run(place, DOCKER_HOST=heard.host)
        assert ended.code == 0, ended.stderr
        if not planned(ended):
            break
    assert not planned(ended)
    return ended


def test_the_engine_is_asked_once_for_all_images(targets, heard: Heard, place: Place):
    first = run(place, DOCKER_HOST=heard.host)
    assert first.code == 0, first.stderr
    assert len(heard.lines) > 1
    assert settle(place, heard).stdout == first.stdout
    assert heard.lines == [LISTING]
    heard.lines.clear()
    looked = run(place, "-v", DOCKER_HOST=heard.host)
    assert (looked.code, looked.stdout, planned(looked)) == (0, first.stdout, True)
    assert heard.lines == [LISTING], "also where a plan is made"


def test_what_was_removed_from_the_engine_is_delivered_again(targets, engine, heard: Heard, place: Place):
    settled = settle(place, heard)
    before = [engine.client.api.inspect_image(name)["Id"] for name in targets]
    engine.client.images.remove(targets[1], force=True)
    ended = run(place, DOCKER_HOST=heard.host)
    assert (ended.code, ended.stdout) == (0, settled.stdout), ended.stderr
    assert ran(ended) == {"web: deliver"}
    assert [engine.client.api.inspect_image(name)["Id"] for name in targets] == before
