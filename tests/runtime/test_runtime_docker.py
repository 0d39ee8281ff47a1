"""The runtime as PID 1 of real containers: as root, and as a user without any privilege on a read-only root."""

import os
import subprocess
import uuid

import pytest
from runtime.shielded import PYTHON, Tree

HOST = os.environ.get("SCONIFY_TEST_DOCKER_HOST")
pytestmark = pytest.mark.skipif(not HOST, reason="SKIPPED: SCONIFY_TEST_DOCKER_HOST names no Docker Engine")

HARDENED = ["--user", "1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]

SOURCE = """
import multiprocessing, os, subprocess, sys
def work(_): return open("/app/secret.txt").read()
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        assert set(pool.map(work, range(4))) == {"top secret\\n"}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(work, [1]) == ["top secret\\n"]
    assert subprocess.run([sys.executable, "/app/tool"], capture_output=True, text=True).stdout == "tool top secret\\n\\n"
    assert subprocess.run(["/app/tool"], capture_output=True, text=True).stdout == "tool top secret\\n\\n"
    try: open("/app/new", "w")
    except OSError as error: print(error.strerror)
    print(os.getuid(), sorted(os.listdir("/app")), open("/proc/1/comm").read().strip())
    try: print(open("/proc/1/environ").read())
    except PermissionError: print("supervisor is closed")
"""


@pytest.fixture(scope="module")
def lower(debian_rootfs, tmp_path_factory):
    """The Debian root file system, unpacked."""
    folder = tmp_path_factory.mktemp("debian")
    # Python's tarfile has no extraction filter before 3.11.4.
    subprocess.run(["tar", "-xf", debian_rootfs, "-C", folder, "--exclude=./dev/*"], check=True)
    return folder


@pytest.fixture(scope="module", params=["directories", "whole image"])
def image(request, lower, tmp_path_factory, runtime_binary, services):
    """A sconified image of one imported layer: some directories protected, or all of it."""
    cas, las = services
    cas.service = {}
    some = {"/app": "encrypted", "/usr/lib/python3.11": "authenticated"}
    whole = {"/": "encrypted"} | dict.fromkeys(("/dev", "/proc", "/run", "/sys", "/tmp"), "plain")
    tree = Tree(
        folder=tmp_path_factory.mktemp("image"),
        runtime=runtime_binary,
        cas=cas,
        las=las,
        lower=str(lower),
        regions=some if request.param == "directories" else whole,
        closure=["/lib64/ld-linux-x86-64.so.2", *_libraries(lower)],
        command=["python3", "-B", "/app/main.py"],
        environment={"PATH": "/usr/bin:/bin"},
    )
    tree.put("/app/main.py", SOURCE)
    tree.put("/app/secret.txt", "top secret\n")
    tree.put("/app/tool", "#!/usr/bin/python3 -B\nprint('tool', open('/app/secret.txt').read())\n", 0o755)
    tree.convert()
    merged = tmp_path_factory.mktemp("merged")
    for layer in (lower, tree.upper):
        subprocess.run(["cp", "-a", f"{layer}/.", str(merged)], check=True)
    name = f"sconify-runtime-test-{uuid.uuid4().hex[:8]}:1"
    with subprocess.Popen(["tar", "-C", str(merged), "-c", "."], stdout=subprocess.PIPE) as archive:
        command = ["docker", "-H", HOST, "import", "-c", f'ENTRYPOINT ["{PYTHON}"]', "-", name]
        imported = subprocess.run(command, stdin=archive.stdout, capture_output=True, check=False)
    assert imported.returncode == 0, imported.stderr
    yield name, dict(cas.service)
    subprocess.run(["docker", "-H", HOST, "rmi", "-f", name], capture_output=True, check=False)


def _libraries(lower):
    """Every name of a library, be it a file or a link, whether or not /lib is merged into /usr."""
    found = []
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        if (lower / folder).is_dir():
            found += [
                f"/{folder}/{item.name}" for item in sorted((lower / folder).iterdir()) if ".so" in item.name and item.is_file()
            ]
    return found


@pytest.fixture
def container(image, services):
    name, service = image
    cas, las = services
    cas.service, cas.refusal = service, None

    def run(*options, variables=()):
        environment = {
            "SCONE_CONFIG_ID": "ns/test/service",
            "SCONE_CAS_ADDR": f"127.0.0.1:{cas.port}",
            "SCONE_LAS_ADDR": f"127.0.0.1:{las.port}",
        }
        assignments = [word for item in (environment | dict(variables)).items() for word in ("-e", "=".join(item))]
        command = ["docker", "-H", HOST, "run", "--rm", "--network", "host", *assignments, *options, name]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize(
    "options", [[], HARDENED, ["--user", "1000"], ["--cap-drop", "ALL"], ["--read-only", "--memory", "96m"]], ids=" ".join
)
def test_the_program_runs_in_a_container(container, options):
    done = container(*options)
    uid = 1000 if "--user" in options else 0
    expected = f"Read-only file system\n{uid} ['main.py', 'secret.txt', 'tool'] python3.11\nsupervisor is closed\n"
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


def test_the_hash_is_asked_for_as_scripts_do(container):
    done = container(variables={"SCONE_HASH": "1"})
    assert len(done.stdout) == 65
    assert done.returncode == 0


def test_an_engine_without_user_notification_is_told(container, tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}'
    )
    done = container("--security-opt", f"seccomp={profile}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs Linux 5.14 or newer and a seccomp profile that allows seccomp(2)" in done.stderr
