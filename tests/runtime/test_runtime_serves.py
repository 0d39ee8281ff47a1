"""What a program sees of its protected files is what it would see natively, and it can do what programs do."""

import io
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from runtime.shielded import PYTHON, closure_of

PROGRAM = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char text[64] = {0}, exe[256] = {0};
    int fd = open("/app/secret.txt", O_RDONLY);
    if (fd < 0) { perror("open"); return 3; }
    read(fd, text, 63);
    readlink("/proc/self/exe", exe, 255);
    printf("%s|%s|%s|%d\\n", argv[0], exe, text, fd);
    return 7;
}
"""


def test_a_protected_python_program_runs_and_sees_its_files_natively(run_python):
    done = run_python(
        """
import os, sys
path = "/app/secret.txt"
by_path, opened = os.stat(path), open(path)
by_fd = os.fstat(opened.fileno())
assert opened.read() == "top secret\\n"
assert by_path.st_size == by_fd.st_size == 11 and by_path.st_mode == by_fd.st_mode == 0o100644
assert by_path.st_mtime_ns == by_fd.st_mtime_ns == 1700000000123456789
after = os.stat(path)
assert (after.st_ino, after.st_dev) == (by_fd.st_ino, by_fd.st_dev)
assert sorted(os.listdir("/app")) == ["main.py", "secret.txt", "sub"]
assert os.readlink("/app/sub/link") == "../secret.txt" and open("/app/sub/link").read() == "top secret\\n"
assert os.lstat("/app/sub/link").st_size == 13
os.chdir("/app/sub")
assert open("../secret.txt").read() == "top secret\\n" and os.path.samefile("link", "../secret.txt")
directory = os.open("/app", os.O_RDONLY | os.O_DIRECTORY)
assert os.read(os.open("secret.txt", os.O_RDONLY, dir_fd=directory), 3) == b"top"
assert os.stat("secret.txt", dir_fd=directory).st_size == 11
assert os.access(path, os.R_OK) and not os.access(path, os.W_OK) and not os.access("/app/none", os.F_OK)
assert os.readlink("/proc/self/exe") == os.path.realpath(sys.executable)
assert os.readlink(f"/proc/self/fd/{opened.fileno()}") == path
assert open(f"/proc/self/fd/{opened.fileno()}").read() == "top secret\\n"
assert open("/proc/self/comm").read() == "python3\\n" and sys.argv == ["/app/main.py"]
assert os.environ["PATH"] and "HOST_SECRET" not in os.environ
print("fine", os.getpid() != 1)
""",
        prepare=lambda tree: (tree.at("/app/sub").mkdir(parents=True), tree.at("/app/sub/link").symlink_to("../secret.txt")),
        env={"HOST_SECRET": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine True\n", "")


def test_changes_of_protected_names_are_refused_as_on_a_read_only_file_system(run_python):
    done = run_python(
        """
import errno, os, socket
def expect(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except OSError as error:
        assert error.errno == code, (call, arguments, error)
    else:
        raise SystemExit(f"{call} {arguments} was allowed")
path = "/app/secret.txt"
open("/tmp/mine", "w").close()
expect(errno.EROFS, open, path, "w")
expect(errno.EROFS, open, path, "r+")
expect(errno.EROFS, open, "/app/new", "w")
expect(errno.EEXIST, open, path, "x")
expect(errno.EROFS, os.mkdir, "/app/new")
expect(errno.EEXIST, os.mkdir, "/app")
expect(errno.EROFS, os.unlink, path)
expect(errno.EROFS, os.rename, path, "/tmp/out")
expect(errno.EROFS, os.rename, "/tmp/mine", "/app/new")
expect(errno.EROFS, os.rename, "/tmp/mine", path)
expect(errno.EROFS, os.rename, "/app", "/elsewhere")
expect(errno.EROFS, os.link, path, "/tmp/out")
expect(errno.EROFS, os.link, "/tmp/mine", "/app/new")
expect(errno.EROFS, os.symlink, "/tmp/mine", "/app/new")
expect(errno.EROFS, os.chmod, path, 0o777)
expect(errno.EROFS, os.chown, path, 0, 0)
expect(errno.EROFS, os.utime, path)
expect(errno.EROFS, os.truncate, path, 0)
expect(errno.EROFS, os.setxattr, path, "user.a", b"")
expect(errno.ENODATA, os.getxattr, path, "user.a")
expect(errno.EROFS, os.mkfifo, "/app/new")
expect(errno.EROFS, socket.socket(socket.AF_UNIX).bind, "/app/sock")
expect(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
expect(errno.ENOTDIR, os.stat, path + "/")
expect(errno.ENOENT, os.stat, "/app/none/x")
expect(errno.EISDIR, open, "/app", "w")
expect(errno.EPERM, os.chroot, "/tmp")
assert os.listxattr(path) == []
socket.socket(socket.AF_UNIX).bind("/tmp/sock")
os.rename("/tmp/mine", "/tmp/yours"); os.link("/tmp/yours", "/tmp/again"); os.unlink("/tmp/again")
os.symlink("/app/secret.txt", "/tmp/link"); assert open("/tmp/link").read() == "top secret\\n"
os.symlink("loop", "/tmp/loop"); expect(errno.ELOOP, open, "/tmp/loop")
expect(errno.ENAMETOOLONG, open, "/app/" + "x" * 300)
os.symlink("/app", "/tmp/appdir"); os.chdir("/tmp/appdir"); assert open("secret.txt").read() and os.getcwd() == "/app"
assert os.open("/tmp", os.O_TMPFILE | os.O_RDWR) > 0
print("fine")
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_processes_threads_and_extension_modules_work(run_python):
    done = run_python(
        """
import multiprocessing as mp, subprocess, sys, threading, sqlite3, ssl, ctypes, _ctypes
def work(number):
    return number, open("/app/secret.txt").read()
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with mp.get_context(method).Pool(2) as pool:
            assert pool.map(work, range(4)) == [(n, "top secret\\n") for n in range(4)], method
    results = []
    threads = [threading.Thread(target=lambda: results.append(work(1)[1])) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert results == ["top secret\\n"] * 8
    out = subprocess.run([sys.executable, "-c", "print(open('/app/secret.txt').read())"], capture_output=True, text=True)
    assert out.stdout == "top secret\\n\\n", out
    out = subprocess.run(["/bin/sh", "-c", "exit 5"]); assert out.returncode == 5
    assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
    print("fine")
""",
        regions={"/app": "encrypted", "/usr/lib/python3.11": "authenticated"},
        closure=[*closure_of(PYTHON), *_libraries_of_modules()],
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def _libraries_of_modules() -> list[str]:
    names = sorted(map(str, Path("/usr/lib/python3.11/lib-dynload").glob("*.so")))
    listed = subprocess.run(["ldd", *names], capture_output=True, text=True, check=True).stdout
    return sorted(
        {word for line in listed.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")}
    )


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ("-no-pie",)), ("gcc", ("-pie", "-fPIE")), ("gcc", ("-static",)), ("musl-gcc", ("-static",)), ("musl-gcc", ())],
    ids=["glibc", "glibc-pie", "glibc-static", "musl-static", "musl"],
)
@pytest.mark.parametrize("protected", [False, True], ids=["plain", "encrypted"])
def test_every_kind_of_program_starts_with_its_name_and_passes_its_status_on(tree, compiled, compiler, flags, protected):
    program = compiled(PROGRAM, *flags, compiler=compiler)
    path = "/app/tool" if protected else "/opt/tool"
    closure = [] if "-static" in flags else [_interpreter(program)] if compiler == "musl-gcc" else closure_of(str(program))
    made = tree(binary=path, closure=closure, command=["tool", "argument"], environment={"PATH": "/opt:/app"})
    made.put(path, program, 0o755)
    made.put("/app/secret.txt", "top secret")
    made.convert()
    done = made.run()
    assert (done.returncode, done.stdout, done.stderr) == (7, f"tool|{path}|top secret|3\n", "")


def _interpreter(program) -> str:
    listed = subprocess.run(["readelf", "-lW", str(program)], capture_output=True, text=True, check=True).stdout
    return listed.split("interpreter: ")[1].split("]")[0]


def test_encrypted_scripts_and_programs_are_started_by_their_paths(run_python, compiled):
    def prepare(tree):
        tree.put("/app/tool", compiled(PROGRAM), 0o755)
        tree.put("/app/script", "#!/usr/bin/python3 -B\nimport sys; print(sys.argv, open('/app/secret.txt').read())\n", 0o755)
        tree.put("/app/env-script", "#!/usr/bin/env python3\nprint('by env', open('/app/secret.txt').read())\n", 0o755)
        tree.at("/app/alias").symlink_to("tool")

    done = run_python(
        """
import os, subprocess
def run(*words, **named):
    out = subprocess.run(words, capture_output=True, text=True, **named)
    print(out.returncode, (out.stdout + out.stderr).strip().removesuffix("|3").strip(), flush=True)
run("/app/tool", "x"); run("/app/alias"); run("./tool", cwd="/app"); run("/app/script", "one", "two"); run("/app/env-script")
if os.fork() == 0:
    fd = os.open("/app/tool", os.O_RDONLY)
    os.execve(fd, ["by descriptor"], {})
status = os.wait()[1] >> 8
print(status)
""",
        prepare=prepare,
    )
    assert done.stdout.splitlines() == [
        "7 /app/tool|/app/tool|top secret",
        "7 /app/alias|/app/tool|top secret",
        "7 ./tool|/app/tool|top secret",
        "0 ['/app/script', 'one', 'two'] top secret",
        "0 by env top secret",
        "by descriptor|/app/tool|top secret",
        "|3",
        "7",
    ], done
    assert done.stderr == ""


def test_signals_reach_the_program_and_its_death_is_told(tree):
    made = tree()
    made.put(
        "/app/main.py",
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\nprint('ready', flush=True)\ntime.sleep(60)\n",
    )
    made.convert()
    for number, expected in ((signal.SIGTERM, 9), (signal.SIGINT, 128 + signal.SIGINT)):
        with subprocess.Popen(made.arguments({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            child = int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout)
            os.kill(child, number)
            process.wait(timeout=20)
            assert process.returncode == expected, process.stderr.read()


def test_the_terminal_is_the_programs(tree):
    made = tree()
    made.put(
        "/app/main.py",
        "import os, signal\nsignal.alarm(20)\ntyped = input()\n"
        "print(os.tcgetpgrp(0) == os.getpgrp() == os.getpid(), 'read', typed)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "print('waits', flush=True)\nprint('got', signal.sigwait([signal.SIGINT]) == signal.SIGINT)\n",
    )
    made.convert()
    arguments = made.arguments({})
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(arguments[0], arguments)
    with os.fdopen(terminal, "r+b", buffering=0) as typing:
        typing.write(b"words\n")
        said = until(typing, b"waits")
        typing.write(b"\x03")
        said += until(typing, b"got True")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"True read words\r\n" in said


def until(terminal: io.FileIO, words: bytes) -> bytes:
    said = b""
    while words not in said:
        said += terminal.read(4096)  # the end of a terminal is an error
    return said


def test_orphans_are_reaped(run_python):
    done = run_python(
        """
import os, time
for _ in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
deadline = time.time() + 10
while time.time() < deadline:
    states = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try: states.append(open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[0])
        except (FileNotFoundError, ProcessLookupError): pass
    if "Z" not in states: break
    time.sleep(0.02)
print(states.count("Z"))
"""
    )
    assert (done.stdout, done.returncode) == ("0\n", 0)


def test_large_and_empty_files_come_whole(run_python):
    done = run_python(
        """
import hashlib
data = open("/app/large", "rb").read()
print(len(data), hashlib.sha256(data).hexdigest() == open("/app/large.sha256").read(), open("/app/empty").read() == "")
""",
        prepare=lambda tree: (
            tree.put("/app/large", large := bytes(range(256)) * 80_000),
            tree.put("/app/large.sha256", __import__("hashlib").sha256(large).hexdigest()),
            tree.put("/app/empty", b""),
        ),
        dlopen=2,
    )
    assert (done.stdout, done.stderr) == ("20480000 True True\n", "")


def test_the_working_directory_is_the_sessions_and_a_missing_one_is_told(run_python):
    done = run_python("import os; print(os.getcwd(), open('secret.txt').read())", pwd="/app")
    assert done.stdout == "/app top secret\n\n"
    done = run_python("print('never')", pwd="/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "working directory /nowhere" in done.stderr


def test_a_session_that_protects_nothing_still_runs_the_measured_program(tree):
    made = tree(
        regions={},
        closure=[],
        command=[PYTHON, "-c", "import sys, subprocess; print(subprocess.call([sys.executable, '-c', 'print(1)']))"],
    )
    made.convert()
    assert "fspf_key" not in made.cas.service
    done = made.run()
    assert (done.stdout, done.stderr, done.returncode) == ("1\n0\n", "", 0)
