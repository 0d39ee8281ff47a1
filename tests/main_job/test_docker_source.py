"""An engine locks a container while it sends an archive of it: reading one must not keep others waiting for ever."""

import threading

import docker

from sconify_tasks.image.docker import DockerSource


def test_an_image_can_be_asked_while_one_of_its_archives_is_read(engine, native):
    """By the same thread, and by another one: with one container for both, the engine would never answer."""
    client = docker.DockerClient(base_url=engine.host, timeout=20)
    source = DockerSource(lambda: client, native.image, platform="linux/amd64")
    seen = []
    try:
        with source.walk([b"/usr"]) as walking:
            next(walking)
            seen.append(source.read(b"/app/other.txt", limit=100))
            other = threading.Thread(target=lambda: seen.append(source.read(b"/tls/api.crt", limit=100)))
            other.start()
            paths = {entry.path for entry, _ in walking}
            other.join()
    finally:
        source.close()
        client.close()
    assert seen == [native.markers[5].encode(), native.markers[15].encode()]
    assert b"/usr/bin/python3.11" in paths
