"""What programs do: fork, exec, threads, extension modules, multiprocessing; their status and signals pass through."""

import signal

import pytest


def test_protected_files_come_in_whole(lab, containers, native):
    program = """
import os, sys
sys.path.insert(0, "/app")
import package
tell(secret=package.SECRET, link=read("/app/link.txt"), hard=read("/app/hard.txt"), deep=read("/app/deep/er/and/deeper/file"),
     sizes=[os.stat("/app/" + name).st_size for name in ("first.bin", "nothing", "secret.txt")],
     listed=sorted(os.listdir("/app/deep")), target=os.readlink("/app/link.txt"), empty=os.listdir("/app/empty"), cwd=os.getcwd())
"""
    markers = native.markers
    assert containers.run(lab, program).told == {
        "secret": markers[12], "link": markers[4], "hard": markers[4], "deep": markers[11], "sizes": [300_032, 0, 32],
        "listed": ["er"], "target": "secret.txt", "empty": [], "cwd": "/app",
    }  # fmt: skip


def test_fork_threads_and_pipes(lab, containers):
    program = """
import os, threading
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, read("/app/greeting.txt").encode())
    os._exit(7)
os.close(writer)
text = os.read(reader, 100).decode()
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
seen = []
threads = [threading.Thread(target=lambda: seen.append(read("/app/greeting.txt"))) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
tell(text=text, status=status, seen=len(seen), same=len(set(seen)))
"""
    assert containers.run(lab, program).told == {"text": "hello from a protected file", "status": 7, "seen": 16, "same": 1}


def test_subprocesses_and_protected_executables(lab, containers):
    program = """
import subprocess, sys
run = lambda *words: subprocess.run(words, capture_output=True, text=True)
own = run(sys.executable, "-c", "print(open('/app/greeting.txt').read())")
script = run("/app/tool.py")
echo = run("/bin/sh", "-c", "echo from the shell")
tell(own=[own.returncode, own.stdout], script=[script.returncode, script.stdout], echo=[echo.returncode, echo.stdout])
"""
    greeting = [0, "hello from a protected file\n"]
    assert containers.run(lab, program).told == {"own": greeting, "script": greeting, "echo": [0, "from the shell\n"]}


def test_exec_keeps_the_status(lab, containers):
    ended = containers.run(lab, "import os, sys; os.execv(sys.executable, ['python3', '-c', 'import sys; sys.exit(9)'])")
    assert (ended.started, ended.status) == (True, 9)


def test_extension_modules_and_dlopen(lab, containers):
    program = """
import ssl, sqlite3, ctypes, hashlib, zlib
connection = sqlite3.connect(":memory:")
found = ctypes.CDLL(None)
maths = ctypes.CDLL("libm.so.6")
maths.sqrt.restype, maths.sqrt.argtypes = ctypes.c_double, [ctypes.c_double]
tell(tls=ssl.OPENSSL_VERSION.split()[0], sql=connection.execute("select 6 * 7").fetchone()[0], pid=found.getpid() > 0, root=maths.sqrt(81.0),
     ciphers=len(ssl.create_default_context().get_ciphers()) > 0)
"""
    assert containers.run(lab, program).told == {"tls": "OpenSSL", "sql": 42, "pid": True, "root": 9.0, "ciphers": True}


def test_multiprocessing_with_fork_and_spawn(lab, containers):
    ended = containers.run(
        lab, "import os, sys; os.execv(sys.executable, ['python3', '-B', '/app/spawning.py'])", "--shm-size=64m"
    )
    one = "[(0, 'hello from a protected file'), (1, 'hello from a protected file'), (4, 'hello from a protected file'), (9, 'hello from a protected file')]"
    assert (ended.status, ended.stderr, ended.stdout) == (0, "", f"STARTED\nfork {one}\nspawn {one}\n")


def test_it_writes_where_the_image_lets_it_and_nowhere_in_protected_directories(lab, containers):
    program = """
import os
def write(path):
    with open(path, "w") as file: file.write("x")
    return "written"
tell(tmp=attempt(write, "/tmp/x"), app=attempt(write, "/app/new"), over=attempt(write, "/app/secret.txt"), gone=attempt(os.unlink, "/app/secret.txt"),
     moved=attempt(os.rename, "/tmp/x", "/app/x"), out=attempt(os.rename, "/app/secret.txt", "/tmp/y"))
"""
    refused = "Read-only file system"
    assert containers.run(lab, program).told == {
        "tmp": "written",
        **dict.fromkeys(("app", "over", "gone", "moved", "out"), refused),
    }


@pytest.mark.parametrize("status", [0, 3, 255])
def test_the_exit_status_is_the_programs(status, lab, containers):
    assert containers.run(lab, f"raise SystemExit({status})").status == status


def test_a_program_that_dies_of_a_signal(lab, containers):
    ended = containers.run(lab, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (ended.started, ended.status) == (True, 128 + signal.SIGSEGV)


@pytest.fixture
def running(api, containers):
    name = containers.start(api)
    containers.follow(name, "STARTED")
    yield name
    containers.remove(name)


def test_docker_stop_ends_it_by_sigterm_and_not_by_force(running, containers):
    containers.docker("stop", "-t", "60", running)
    assert containers.exit_status(running) == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["INT", "KILL", "USR1"])
def test_docker_kill_passes_the_signal(name, running, containers):
    containers.docker("kill", "-s", name, running)
    # Python turns SIGINT into KeyboardInterrupt, and that into the same status.
    assert containers.exit_status(running) == 128 + getattr(signal, f"SIG{name}")


def test_a_handler_of_the_program_gets_the_signal(lab, containers):
    program = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(42)); os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    assert containers.run(lab, program).status == 42
