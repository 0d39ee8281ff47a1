"""What the shield costs: start-up, calls and HTTP requests of a shielded program, as ratios to the same program natively.

Usage: python benchmarks/shield.py [--rounds 3] [--starts 30] [--no-engine]

Calls and HTTP run in containers with host networking, native and shielded alike (with --no-engine, in a chroot). Start-up is
measured in a chroot: an engine takes a hundred times longer than Python to start. CAS and LAS are real and run here; every
start attests. Natively and shielded take turns, and the best round of each counts. Nothing is asserted. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from measuring import ROOT, Unavailable, installed, machine, or_say_what_is_missing, percentiles, table, tests_on_path

_CONNECTIONS = 4
_SECONDS = 3.0
_PATIENCE = 30.0
_LARGE = 100 << 20
_PYTHON = "/usr/bin/python3.11"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_HTTP = {"HTTP, no file access": "/plain", "HTTP, one protected open each": "/file"}
Result = TypeVar("Result")


@dataclass(kw_only=True)
class Setup:
    """Folders, the CAS, and the engine if there is one."""

    work: Path
    native: Path
    cas: dict[str, Any]
    engine: Any | None
    port: int
    commands: list[list[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """HOME of the commands: state and cache lie below it."""
        return self.work / "home"

    def convert(self, name: str, to: str, command: str) -> None:
        """Make the shielded image with one command."""
        arguments = [
            installed("sconify_image"),
            f"--from=dir:{self.native}",
            f"--to={to}",
            "--base=scratch",
            f"--name={name}",
            f"--binary={_PYTHON}",
            "--dir=/app",
            "--plain=/srv/public",
            f"--command={command}",
            "--allow-debug-mode",
        ]
        self.commands.append(arguments)
        run(arguments, environment=self.environment(), folder=self.work)

    def environment(self) -> dict[str, str]:
        """For the commands of this project."""
        found = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        return found | {"DOCKER_HOST": self.engine.host} if self.engine else found

    def addresses(self) -> dict[str, str]:
        """Where the runtime finds CAS and LAS."""
        return {
            "SCONE_CAS_ADDR": f"127.0.0.1:{self.cas['enclave_port']}",
            "SCONE_LAS_ADDR": f"127.0.0.1:{self.cas['las_port']}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A program ready to be started: in a container, or in a chroot of a mount namespace of its own."""

    arguments: list[str]
    stop: Callable[[], None] = lambda: None


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="shield.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of calls and HTTP; the best counts [default: 3]")
    parser.add_argument("--starts", type=int, default=30, help="starts of each kind [default: 30]")
    parser.add_argument("--no-engine", action="store_true", help="measure everything in a chroot")
    options = parser.parse_args()
    return or_say_what_is_missing(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    tests_on_path()
    from parts.debian import debian_rootfs_tar

    if os.geteuid() != 0:
        raise Unavailable("root is missing: programs are started in a chroot")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sconify-bench-")))
        engine = None if options.no_engine else stack.enter_context(_engine())
        print("making the images...", file=sys.stderr)
        native = _native(debian_rootfs_tar(), work)
        setup = Setup(work=work, native=native, cas={}, engine=engine, port=_free_port())
        setup.home.mkdir()
        setup.cas = stack.enter_context(_serving(setup))
        print(machine(engine.client.version()["Version"] if engine else "none"))
        starts = _starts(setup, options.starts)
        calls = _in_turns(setup, "calls", "python3 -B /app/main.py", _calls, options.rounds)
        requests = _in_turns(setup, "serve", f"python3 -B /app/main.py serve {setup.port}", _requests, options.rounds)
        print(_report(setup, starts, calls, requests))
    return 0


@contextmanager
def _engine() -> Iterator[Any]:
    from parts.engine import running_engine

    with running_engine() as engine:
        yield engine


def _native(tar: Path, work: Path) -> Path:
    """Debian with Python, compiled as its packages' scripts would, and the program with its files."""
    folder = work / "native"
    folder.mkdir()
    run(["tar", "-xf", str(tar), "-C", str(folder)])
    compile_ = ["chroot", str(folder), _PYTHON, "-m", "compileall", "-q", "-x", "lib2to3/tests", "/usr/lib/python3.11"]
    subprocess.run(compile_, capture_output=True, check=False)  # files that test the compiler fail on purpose
    (folder / "app" / "data").mkdir(parents=True)
    (folder / "srv" / "public").mkdir(parents=True)
    shutil.copyfile(ROOT / "benchmarks" / "shield_program.py", folder / "app" / "main.py")
    for place in ("app/data/small.txt", "srv/public/small.txt"):
        (folder / place).write_bytes(b"x" * 64)
    (folder / "app/data/large.bin").write_bytes(os.urandom(_LARGE))
    environment = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
    config = {"Cmd": ["python3"], "WorkingDir": "/app", "Env": environment}
    document = {"architecture": "amd64", "os": "linux", "config": config}
    folder.with_name("native.json").write_text(json.dumps(document))
    return folder


@contextmanager
def _serving(setup: Setup) -> Iterator[dict[str, Any]]:
    """The CAS and the LAS, on ports of their own; what they say of themselves."""
    ports = ["--api-port=0", "--enclave-port=0", "--las-port=0"]
    command = [installed("sconify-cas"), "serve", "--listen=127.0.0.1", *ports]
    with (setup.work / "cas.log").open("wb") as log:
        cas = subprocess.Popen(command, env=setup.environment(), stdout=subprocess.PIPE, stderr=log, text=True)
    assert cas.stdout is not None
    try:
        line = cas.stdout.readline()
        if not line:
            raise SystemExit(f"sconify-cas serve ended: {(setup.work / 'cas.log').read_text()[-2000:]}")
        yield json.loads(line)
    finally:
        cas.terminate()
        cas.wait(_PATIENCE)


def _starts(setup: Setup, rounds: int) -> dict[str, list[float]]:
    """`python3 -c pass`, natively and shielded, until it has ended."""
    root, environment = _unpacked(setup, "start", "python3 -c pass")
    variants = {
        "native": {"root": str(setup.native), "argv": [_PYTHON, "-c", "pass"], "env": _ENVIRONMENT},
        "shielded": {"root": str(root), "argv": [_PYTHON], "env": environment},
    }
    command = ["unshare", "--mount", sys.executable, "-I", str(ROOT / "benchmarks" / "start.py")]
    task = json.dumps({"rounds": rounds, "variants": variants})
    found: dict[str, list[float]] = json.loads(run(command, text=task))
    return found


def _unpacked(setup: Setup, name: str, command: str) -> tuple[Path, dict[str, str]]:
    """The shielded image as a folder, and the environment that an engine would give it."""
    layout = setup.work / f"{name}-oci"
    setup.convert(name, f"oci:{layout}:1", command)
    root = setup.work / f"{name}-root"
    root.mkdir()
    manifest = _blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0])
    document = json.loads(manifest.read_text())
    for layer in document["layers"]:
        run(["tar", "-xf", str(_blob(layout, layer)), "-C", str(root)])
    pairs = (item.split("=", 1) for item in json.loads(_blob(layout, document["config"]).read_text())["config"]["Env"])
    return root, {name: value for name, value in pairs} | setup.addresses()  # noqa: C416


def _blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    return layout / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")


def _in_turns(
    setup: Setup, name: str, command: str, measure: Callable[[Setup, Place], Result], rounds: int
) -> dict[str, list[Result]]:
    """Measure a command natively and shielded, in turns."""
    places = {"native": _native_place(setup, command), "shielded": _shielded_place(setup, name, command)}
    found: dict[str, list[Result]] = {kind: [] for kind in places}
    for _ in range(rounds):
        for kind, place in places.items():
            found[kind].append(measure(setup, place))
    return found


def _native_place(setup: Setup, command: str) -> Place:
    words = command.split()
    if setup.engine is None:
        return _in_chroot(setup.native, [_PYTHON, *words[1:]], _ENVIRONMENT)
    image = setup.engine.name("native")
    tar = setup.work / "native.tar"
    if not tar.exists():
        run(["tar", "-cf", str(tar), "-C", str(setup.native), "."])
    setup.engine.import_rootfs(tar, name=image, changes=[f"ENV {name}={value}" for name, value in _ENVIRONMENT.items()])
    return _in_container(setup, image, {}, words)


def _shielded_place(setup: Setup, name: str, command: str) -> Place:
    if setup.engine is None:
        root, environment = _unpacked(setup, name, command)
        return _in_chroot(root, [_PYTHON], environment)
    image = setup.engine.name(f"shielded-{name}")
    setup.convert(name, f"docker:{image}", command)
    return _in_container(setup, image, setup.addresses(), [])


def _in_container(setup: Setup, image: str, environment: dict[str, str], words: list[str]) -> Place:
    container = image.replace("/", "-").replace(":", "-")
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    assert setup.engine is not None
    docker = ["docker", "-H", setup.engine.host]

    def stop() -> None:
        subprocess.run([*docker, "rm", "-f", container], capture_output=True, check=False)

    arguments = [*docker, "run", "--rm", f"--name={container}", "--network=host", *variables, image, *words]
    return Place(arguments=arguments, stop=stop)


def _in_chroot(root: Path, words: list[str], environment: dict[str, str]) -> Place:
    mounts = f"mkdir -p {root}/proc {root}/dev && mount -t proc proc {root}/proc && mount --bind /dev {root}/dev"
    script = f'{mounts} && exec chroot {root} env -i "$@"'
    variables = [f"{name}={value}" for name, value in environment.items()]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return Place(arguments=[*namespaces, "sh", "-ec", script, "sh", *variables, *words])


def _calls(_: Setup, place: Place) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(run(place.arguments))
    return found


def _requests(setup: Setup, place: Place) -> dict[str, tuple[float, list[float]]]:
    """Requests per second and the milliseconds of each, by kind of request."""
    server = subprocess.Popen(place.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(setup.port, server)
        return {name: _load(setup.port, path) for name, path in _HTTP.items()}
    finally:
        place.stop()
        server.terminate()
        server.wait(_PATIENCE)


def _wait_for(port: int, server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    server.kill()
    raise SystemExit(f"the server does not answer: {server.communicate()[1][-2000:]}")


def _load(port: int, path: str) -> tuple[float, list[float]]:
    """Ask over some connections that stay open, one request after the other on each."""
    samples: list[list[float]] = [[] for _ in range(_CONNECTIONS)]
    begun = time.perf_counter()
    threads = [threading.Thread(target=_ask, args=(port, path, begun + _SECONDS, mine)) for mine in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - begun
    together = [value for mine in samples for value in mine]
    return len(together) / spent, together


def _ask(port: int, path: str, end: float, samples: list[float]) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (begun := time.perf_counter()) < end:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\n" + b"x" * 64):
                part = connection.recv(4096)
                if not part:
                    raise SystemExit(f"the server hung up after {answer!r}")
                answer += part
            samples.append((time.perf_counter() - begun) * 1000)


def run(
    command: Sequence[str], *, environment: dict[str, str] | None = None, folder: Path | None = None, text: str | None = None
) -> str:
    """Run a command; its output, or the end of the benchmark."""
    done = subprocess.run(command, input=text, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _report(
    setup: Setup,
    starts: dict[str, list[float]],
    calls: dict[str, list[dict[str, list[float]]]],
    requests: dict[str, list[dict[str, tuple[float, list[float]]]]],
) -> str:
    headings = ("what", "unit", "native p50", "p90", "p99", "shielded p50", "p90", "p99", "ratio of p50")
    rows = [_row("python3 -c pass, attested", "ms", starts["native"], starts["shielded"])]
    for name in calls["native"][0]:
        if name == "first open of 100 MB":
            continue
        rows.append(_row(name, "µs", *(_best([taken[name] for taken in calls[kind]]) for kind in ("native", "shielded"))))
    for name in _HTTP:
        best = {kind: _best([taken[name][1] for taken in requests[kind]]) for kind in requests}
        rows.append(_row(name, "ms", best["native"], best["shielded"]))
    added = min(starts["shielded"]) - min(starts["native"])
    lines = [table(headings, rows), ""]
    lines += [f"start-up: {added:.1f} ms more than natively, fastest to fastest (aim: at most 30)"]
    for name in _HTTP:
        native, shielded = (max(taken[name][0] for taken in requests[kind]) for kind in ("native", "shielded"))
        lines += [f"{name}: {native:.0f} requests/s natively, {shielded:.0f} shielded, ratio {shielded / native:.2f}"]
    for kind in ("native", "shielded"):
        opened, read = (min(taken["first open of 100 MB"][part] for taken in calls[kind]) for part in (0, 1))
        lines += [f"100 MB file, {kind}: {opened:.1f} ms for the first open, {read:.1f} ms to read it"]
    where = "chroot" if setup.engine is None else "container of the engine, --network=host"
    lines += [f"calls and HTTP: {where}; {_CONNECTIONS} connections, {_SECONDS:.0f} s each; start-up: chroot", "made with:"]
    return "\n".join(lines + [f"    {' '.join(command)}" for command in setup.commands])


def _best(rounds: list[list[float]]) -> list[float]:
    """The round with the lowest median."""
    return min(rounds, key=lambda samples: percentiles(samples)[0])


def _row(name: str, unit: str, native: list[float], shielded: list[float]) -> tuple[str, ...]:
    ours, theirs = percentiles(shielded), percentiles(native)
    figures = [f"{value:.2f}" for value in (*theirs, *ours)]
    return (name, unit, *figures, f"{ours[0] / theirs[0]:.2f}")


if __name__ == "__main__":
    sys.exit(main())
