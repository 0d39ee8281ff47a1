"""The main job: a native image goes in, and what comes out answers HTTP with the content of protected files."""

import hashlib
import hmac
import json
import urllib.request

import pytest

LEAST = ("--user", "1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def _get(host, port, path):
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=60) as answer:
        return json.loads(answer.read())


def _answers(native, host, port, uid):
    key = f"-----BEGIN PRIVATE KEY-----\n{native.markers[14]}\n-----END PRIVATE KEY-----\n".encode()
    assert _get(host, port, "/") == {"greeting": "hello from a protected file", "mode": "confidential", "uid": uid}
    assert _get(host, port, "/sign/text") == {"hmac": hmac.new(key, b"text", hashlib.sha256).hexdigest()}


@pytest.mark.parametrize("least", [False, True], ids=["the default profile", "the least privilege"])
@pytest.mark.parametrize("base", ["scratch", "debian"])
def test_it_answers_on_the_default_bridge(base, least, native, workshop, containers):
    options, uid = (LEAST, 1000) if least else ((), 0)
    of = {"scratch": "scratch", "debian": f"docker:{native.base}"}[base]
    image = workshop.confidential("api" if base == "scratch" else "api-debian", native, f"--base={of}", "--allow-debug-mode")
    name = containers.start(image, "--rm", *options)
    try:
        port = containers.follow(name, "STARTED").split()[1]
        host = containers.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name).stdout.decode().strip()
        _answers(native, host, port, uid)
    finally:
        containers.remove(name)


def test_it_answers_in_the_hosts_network(native, api, containers, free_port_image):
    name = containers.start(free_port_image, "--rm", "--network", "host", addresses=containers.addresses(host="127.0.0.1"))
    try:
        port = containers.follow(name, "STARTED").split()[1]
        _answers(native, "127.0.0.1", port, 0)
    finally:
        containers.remove(name)


@pytest.fixture
def free_port_image(workshop, native):
    """In the host's network 8080 may be taken: any free port, by the session's environment."""
    return workshop.confidential("api-free", native, "--base=scratch", "--allow-debug-mode", "--env=API_PORT=0")


def test_without_allow_debug_mode_it_is_built_and_refused_at_start(native, workshop, containers):
    image = workshop.confidential("strict", native, "--base=scratch")
    ended = containers.run(image)
    assert (ended.status, ended.stdout) == (1, "")
    assert "debug-not-tolerated" in ended.stderr
    assert "--allow-debug-mode" in ended.stderr
