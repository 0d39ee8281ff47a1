"""A program under the shield inherits what it would inherit natively, and starts itself again as programs do."""

import json

import pytest
from runtime.shielded import PYTHON, closure_of

CHILD = """
import json, os, signal
blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
ignored = [int(one) for one in signal.valid_signals() if signal.getsignal(one) == signal.SIG_IGN]
closed = [fd for fd in range(3) if not os.path.lexists(f"/proc/self/fd/{fd}")]
print(json.dumps([blocked, ignored, closed]), flush=True)
"""

INHERITS = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGRTMIN])
out = os.open("/tmp/out", os.O_CREAT | os.O_RDWR | os.O_APPEND)
for closed in ([], [0], [2], [0, 2]):
    child = os.fork()
    if child == 0:
        os.dup2(out, 1)
        os.close(out)
        for fd in closed:
            os.close(fd)
        os.execv("COMMAND", ["COMMAND", *WORDS])
    os.waitpid(child, 0)
print(open("/tmp/out").read())
"""


@pytest.mark.parametrize("by", ["path", "script", "exe"])
def test_masks_ignored_signals_and_closed_descriptors_are_inherited(run_python, by):
    command, words = {
        "path": (PYTHON, ["-B", "/app/child.py"]),
        "script": ("/app/script", []),
        "exe": ("/proc/self/exe", ["-B", "/app/child.py"]),
    }[by]

    def prepare(tree):
        tree.put("/app/child.py", CHILD)
        tree.put("/app/script", f"#!{PYTHON} -B\n{CHILD}", 0o755)

    done = run_python(INHERITS.replace("COMMAND", command).replace("WORDS", repr(words)), prepare=prepare)
    found = [json.loads(line) for line in done.stdout.splitlines() if line]
    # Python itself ignores SIGPIPE and SIGXFSZ.
    assert found == [[[1, 2, 3, 34], [10, 13, 15, 25], closed] for closed in ([], [0], [2], [0, 2])], done


def test_a_signal_that_the_parent_blocked_does_not_end_a_child_while_it_starts(run_python):
    done = run_python(
        """
import os, signal, sys
signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
ended = []
for _ in range(30):
    for number in signals:
        child = os.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-S", "-c", f"import signal; print(signal.sigwait([{int(number)}]) == {int(number)})"])
        os.kill(child, number)
        ended.append(os.waitpid(child, 0)[1])
print(set(ended))
"""
    )
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["True"] * 90 + ["{0}"], "", 0)


AGAIN = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
int main(int argc, char **argv) {
    char exe[256] = {0}, text[16] = {0};
    if (argc > 1 && !strcmp(argv[1], "again")) {
        int fd = open("/app/secret.txt", O_RDONLY);
        read(fd, text, 3);
        readlink("/proc/self/exe", exe, 255);
        printf("%s %s %s\\n", argv[0], exe, text);
        return 5;
    }
    if (argc > 1) dup2(0, 1000);
    execl("/proc/self/exe", "me", "again", NULL);
    perror("execl");
    return 1;
}
"""


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_a_program_starts_itself_by_proc_self_exe(tree, compiled, flags):
    program = compiled(AGAIN, *flags)
    made = tree(binary="/app/tool", closure=[] if flags else closure_of(str(program)), command=["/app/tool"])
    made.put("/app/tool", program, 0o755)
    made.put("/app/secret.txt", "top secret")
    made.convert()
    done = made.run()
    assert (done.stdout, done.stderr, done.returncode) == ("me /app/tool top\n", "", 5)


def test_a_descriptor_in_the_interpreters_place_refuses_the_start_and_is_told(tree, compiled):
    program = compiled(AGAIN)
    made = tree(binary="/app/tool", closure=closure_of(str(program)), command=["/app/tool", "taken"])
    made.put("/app/tool", program, 0o755)
    made.put("/app/secret.txt", "top secret")
    made.convert()
    done = made.run()
    assert (done.stdout, done.returncode) == ("", 1)
    assert "the descriptor 1000, where its interpreter belongs, is in use; use the program's path" in done.stderr
    assert done.stderr.endswith("execl: Permission denied\n")


def test_a_program_that_is_not_verified_can_not_start_a_running_one_with_an_interpreter_of_its_own(run_python, compiled):
    thief = compiled(
        """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char name[64];
    dup2(open("/tmp/evil-loader", O_RDONLY), 1000);
    sprintf(name, "/proc/%d/exe", getppid());
    execl(name, name, "-c", "print(open('/app/secret.txt').read())", NULL);
    perror("thief");
    return 3;
}
""",
        "-static",
    )
    done = run_python(
        """
import shutil, subprocess
shutil.copy("/opt/loader", "/tmp/evil-loader")
print(subprocess.run(["/opt/thief"]).returncode)
""",
        prepare=lambda tree: (tree.put("/opt/thief", thief, 0o755), tree.put("/opt/loader", thief, 0o755)),
    )
    assert done.stdout == "3\n"
    assert "thief: Permission denied" in done.stderr
    assert "top secret" not in done.stdout + done.stderr


def test_what_outlives_the_program_ends_in_silence(run_python):
    done = run_python(
        """
import os, time
for _ in range(8):
    if os.fork() == 0:
        while True:
            os.stat("/app/secret.txt")
time.sleep(0.2)
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_start_takes_no_descriptor_that_is_handed_on_also_under_a_low_limit(run_python):
    done = run_python(
        """
import os, resource, subprocess, sys
kept = [os.open("/app/secret.txt", os.O_RDONLY) for _ in range(40)]
for fd in kept:
    os.set_inheritable(fd, True)
for fd in kept[:14]:
    os.close(fd)
_, hard = os.dup2(kept[-1], 999), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
print(kept[14:], flush=True)
for soft in (29, 64, 1024):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    subprocess.run([sys.executable, "-S", "-c", "import os; print([fd for fd in range(3, 1001) if os.path.exists(f'/proc/self/fd/{fd}')])"], close_fds=False)
""",
        dlopen=2,
    )
    assert done.returncode == 0, done
    handed, *found = map(json.loads, done.stdout.splitlines())
    assert (found, done.stderr, done.returncode) == ([[*handed, 999]] * 3, "", 0), done


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_script_that_nobody_protects_runs_in_the_verified_interpreter(run_python, uid):
    source = """
import os, subprocess
open("/tmp/cgi.py", "w").write("#!PYTHON -B\\nimport sys; print(sys.argv, open('/app/secret.txt').read())\\n")
os.chmod("/tmp/cgi.py", 0o755)
print(subprocess.run(["/tmp/cgi.py", "one", "two"], capture_output=True, text=True))
print(subprocess.run(["/opt/script", "three"], capture_output=True, text=True))
"""

    def prepare(tree):
        tree.put("/opt/script", f"#!{PYTHON} -B\nimport sys; print(sys.argv)\n", 0o755)

    regions = {"/app": "encrypted", "/opt": "authenticated"}
    done = run_python(source.replace("PYTHON", PYTHON), prepare=prepare, regions=regions, uid=uid, dlopen=2)
    assert "['/tmp/cgi.py', 'one', 'two'] top secret" in done.stdout, done
    assert "['/opt/script', 'three']" in done.stdout, done
    assert (done.stderr, done.returncode) == ("", 0)
