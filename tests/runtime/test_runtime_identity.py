"""Programs that change their user keep their protected files, and get no more than their new user may have."""

import pytest

HELP = """
import os, subprocess, sys
def attempt(path):
    try: return open(path).read().strip()
    except OSError as error: return os.strerror(error.errno)
"""


def test_a_program_that_drops_its_user_still_reads_what_it_may(run_python):
    done = run_python(
        HELP
        + """
os.chdir("/app")
os.setgid(1000); os.setgroups([]); os.setuid(1000)
print(attempt("/app/secret.txt"), "|", attempt("secret.txt"), "|", attempt("/app/root-only.txt"), "|", os.access("/app/root-only.txt", os.R_OK))
""",
        prepare=lambda tree: tree.put("/app/root-only.txt", "x", 0o600),
    )
    assert (done.stdout, done.stderr) == ("top secret | top secret | Permission denied | False\n", "")


def test_exec_after_the_change_of_user_works(run_python):
    done = run_python(
        HELP
        + """
if len(sys.argv) == 1:
    os.setgid(1000); os.setuid(1000)
    os.execv(sys.executable, [sys.executable, "-B", "/app/main.py", "again"])
child = subprocess.run([sys.executable, "-c", "print(open('/app/secret.txt').read())"], capture_output=True, text=True)
print(os.getuid(), attempt("/app/secret.txt"), "|", child.stdout.strip())
"""
    )
    assert (done.stdout, done.stderr) == ("1000 top secret | top secret\n", "")


def test_a_forked_worker_may_drop_its_user(run_python):
    done = run_python(
        HELP
        + """
if os.fork() == 0:
    os.setgid(1000); os.setuid(1000)
    print(attempt("/app/secret.txt"), flush=True)
    out = subprocess.run([sys.executable, "-c", "print(open('/app/secret.txt').read().strip())"], capture_output=True, text=True)
    print(out.stdout.strip(), flush=True)
    os._exit(0)
os.wait()
print(attempt("/app/secret.txt"))
"""
    )
    assert (done.stdout, done.stderr) == ("top secret\ntop secret\ntop secret\n", "")


def test_a_fork_after_the_change_of_user_is_refused_and_told(run_python):
    done = run_python(
        HELP
        + """
import os
os.setgid(1000); os.setuid(1000)
if os.fork() == 0:
    print(attempt("/app/secret.txt"), attempt("/etc/passwd"), flush=True)
    os._exit(0)
os.wait()
"""
    )
    assert done.stdout in ("Permission denied Permission denied\n", "top secret " + done.stdout[11:])
    if "denied" in done.stdout:
        assert "let the program exec after the change" in done.stderr


@pytest.mark.parametrize("uid", [1000, 65534])
def test_a_container_that_runs_as_a_user_works_without_any_capability(run_python, uid):
    done = run_python(
        HELP
        + """
import subprocess
print(os.getuid(), attempt("/app/secret.txt"), os.readlink("/proc/self/exe"), open("/proc/self/comm").read().strip())
print(subprocess.run([sys.executable, "-c", "print(open('/app/secret.txt').read())"], capture_output=True, text=True).stdout.strip())
print([line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1])
""",
        uid=uid,
    )
    assert (done.stdout, done.stderr) == (f"{uid} top secret /usr/bin/python3.11 python3\ntop secret\n0000000000000000\n", "")
