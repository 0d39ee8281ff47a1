"""Debian's services after conversion: each does its real work in Docker, in both modes, as root and with the least privilege."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from contextlib import closing, contextmanager

import pytest
from services.conftest import LEAST, MODES, SECRET, USERS, free_port
from services.fastcgi import ask

SHA = {"sha": "2d71"}  # of "x"
SCRIPTS = {
    "python": ("python3", "python3 /app/serve.py", {**SHA, "sql": 42, "tls": True}),
    "node": ("node", "node /app/server.js", {**SHA, "again": SECRET, "markers": 1}),
    "perl": ("perl", "perl /app/work.pl", {**SHA, "status": 0}),
    "ruby": ("ruby", "ruby /app/work.rb", {**SHA, "home": []}),
    "php": ("/usr/bin/php8.2", "/usr/bin/php8.2 /app/work.php", {**SHA, "zone": "UTC", "twice": 42}),
    "python-module": ("python3", "python3 -m module", {"installed": None, "in": "/usr", "version": "3.11"}),
    "python-in-a-venv": (
        "/opt/venv/bin/python",
        "/opt/venv/bin/python -m module",
        {"installed": 42, "in": "/opt/venv", "version": "3.11"},
    ),
}
PATIENCE = 60


@pytest.mark.parametrize(("service", "mode"), [(service, mode) for service in SCRIPTS for mode in MODES])
def test_a_script_finds_its_language_s_libraries_and_its_secret(service, mode, lab):
    binary, command, more = SCRIPTS[service]
    image = lab.shared(f"{service}-{mode}", f"--binary={binary}", f"--command={command}", *MODES[mode])
    for options in USERS.values():
        assert lab.run(image, *options).told == {"secret": SECRET, **more}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", ["python", "python-module"])
def test_another_release_s_python_does_the_same(service, mode, python_313_image, lab):
    binary, command, more = SCRIPTS[service]
    words = (f"--binary={binary}", f"--command={command}", *MODES[mode])
    image = lab.convert(f"{service}-313-{mode}", *words, source=f"docker:{python_313_image}")
    told = {"secret": SECRET, **more, **({"version": "3.13"} if "version" in more else {})}
    for options in USERS.values():
        assert lab.run(image, *options).told == told


@pytest.mark.parametrize("mode", MODES)
def test_java_runs_a_jar(mode, java_image, lab):
    image = lab.shared(
        f"java-{mode}",
        "--binary=java",
        "--command=java -jar /app/work.jar one",
        *MODES[mode],
        source=f"docker:{java_image}",
    )
    for options in USERS.values():
        told = {"secret": SECRET, **SHA, "tls": True, "zone": "GMT", "words": 1}
        assert lab.run(image, *options).told == told


@pytest.mark.parametrize("mode", MODES)
def test_php_fpm_answers_in_fastcgi_and_behind_nginx(mode, lab):
    config = f"/app/fpm-{mode}.conf"
    image = lab.convert(f"fpm-{mode}", "--binary=php-fpm8.2", f"--command=php-fpm8.2 -y {config}", *MODES[mode])
    port = _port(lab, config)
    told = {"secret": SECRET, **SHA, "zone": "UTC", "twice": 42}
    for options in USERS.values():
        with _running(lab, image, port, *options) as name:
            for _ in range(4):
                headers, _, body = ask(port, "/app/work.php", PATIENCE).partition("\r\n\r\n")
                assert "Content-type: text/html" in headers
                assert json.loads(body) == told
            workers = [line.split() for line in _processes(lab, name) if "pool www" in line]
            assert [owner for owner, *_ in workers] == ["1000" if options else "33"] * 2


def test_php_fpm_serves_what_nginx_is_asked_for(lab):
    fpm = lab.convert("front-fpm", "--binary=php-fpm8.2", "--command=php-fpm8.2 -y /app/fpm-front.conf", "--dir=/app")
    nginx = lab.convert("front-nginx", "--binary=nginx", "--command=nginx -c /app/nginx-front.conf", "--dir=/app")
    behind, port = (_port(lab, f"/app/{name}-front.conf") for name in ("fpm", "nginx"))
    with (
        _running(lab, fpm, behind, *LEAST),
        _running(lab, nginx, port, *LEAST),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/work.php", timeout=PATIENCE) as answer,
    ):
        assert json.loads(answer.read())["secret"] == SECRET


@pytest.mark.parametrize("mode", MODES)
def test_nginx_answers_and_changes_to_its_user(mode, lab):
    image = lab.convert(f"nginx-{mode}", "--binary=nginx", f"--command=nginx -c /app/nginx-{mode}.conf", *MODES[mode])
    port = _port(lab, f"/app/nginx-{mode}.conf")
    for options in ((), (*LEAST,)):
        with _running(lab, image, port, *options) as name:
            for _ in range(20):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/secret.txt", timeout=PATIENCE) as answer:
                    assert (answer.read().decode().strip(), answer.headers["Content-Type"]) == (SECRET, "text/plain")
            workers = [line.split() for line in _processes(lab, name) if "worker" in line]
            assert [owner for owner, *_ in workers] == ["1000" if options else "33"] * 2


@pytest.mark.parametrize("mode", MODES)
def test_redis_keeps_what_it_is_given_and_saves_in_the_background(mode, lab):
    port = free_port()
    command = f"redis-server --bind 127.0.0.1 --port {port} --save '' --dir /tmp"
    image = lab.convert(f"redis-{mode}", "--binary=redis-server", f"--command={command}", *MODES[mode])
    for options in USERS.values():
        with _running(lab, image, port, *options), closing(socket.create_connection(("127.0.0.1", port), PATIENCE)) as client:
            answers = client.makefile("rb")
            client.sendall(b"".join(b"SET key:%d %d\r\n" % (number, number) for number in range(3000)))
            assert {answers.readline() for _ in range(3000)} == {b"+OK\r\n"}
            client.sendall(b"DBSIZE\r\nGET key:2999\r\nBGSAVE\r\n")
            assert [answers.readline() for _ in range(4)] == [
                b":3000\r\n",
                b"$4\r\n",
                b"2999\r\n",
                b"+Background saving started\r\n",
            ]
            while (said := _info(client, answers, "persistence"))["rdb_bgsave_in_progress"] != "0":
                time.sleep(0.1)
            assert said["rdb_last_bgsave_status"] == "ok"
            measured = _benchmarked(lab, port)
            assert all(
                re.search(rf"^{name}: [1-9][\d.]* requests per second", measured, re.MULTILINE) for name in ("SET", "GET")
            )


@pytest.mark.parametrize("mode", MODES)
def test_a_shell_script_is_the_entry_point(mode, lab):
    image = lab.convert(f"entry-sh-{mode}", "--binary=sh", "--command=/app/entry.sh one two", *MODES[mode])
    for options in USERS.values():
        assert lab.run(image, *options).told == {"secret": SECRET, "options": "e", "words": "/app/entry.sh one two"}


def test_a_script_that_env_starts_is_the_binary_and_is_not_encrypted_where_no_dir_says_so(lab, tmp_path):
    image = lab.convert("entry-py", "--binary=/app/entry.py", "--command=/app/entry.py one", "--plain-file=/app/secret.txt")
    told = {"secret": SECRET, "words": ["/app/entry.py", "one"], "cache": True}
    assert lab.run(image).told == told
    stored = lab.containers.read(image, "/app/entry.py")
    assert stored.startswith(b"#!/usr/bin/env")
    (tmp_path / "changed").write_bytes(stored.replace(b"sys.argv", b"sys.path"))
    (tmp_path / "changed").chmod(0o755)
    for options in USERS.values():
        ended = lab.run(image, *options, f"--volume={tmp_path}/changed:/app/entry.py:ro")
        assert ended.status != 0
        assert SECRET not in ended.stdout
        assert "/app/entry.py" in ended.stderr


def _port(lab, path):
    return int(re.search(rb"listen (?:= )?127.0.0.1:(\d+)", lab.containers.read(lab.image, path)).group(1))


@contextmanager
def _running(lab, image, port, *options):
    """A container that listens; its output where it does not."""
    name = lab.containers.start(image, "--network=host", *options)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with closing(socket.socket()) as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            alive = lab.containers.docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == b"true"
            if not alive or time.monotonic() > end:
                logs = lab.containers.docker("logs", name)
                raise AssertionError((logs.stdout + logs.stderr).decode())
            time.sleep(0.1)
        yield name
    finally:
        lab.containers.remove(name)


def _processes(lab, name):
    return lab.containers.docker("top", name, "-eo", "uid,pid,args").stdout.decode().splitlines()


def _benchmarked(lab, port):
    """What redis-benchmark of the native image says of the server; its status is 0."""
    asked = ("-h", "127.0.0.1", "-p", str(port), "-n", "2000", "-q", "-t", "set,get")
    command = ("run", "--rm", "--network=host", "--entrypoint", "redis-benchmark", lab.image, *asked)
    return lab.containers.docker(*command).stdout.decode().replace("\r", "\n")


def _info(client, answers, section):
    client.sendall(b"INFO %s\r\n" % section.encode())
    text = answers.read(int(answers.readline()[1:]) + 2).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
