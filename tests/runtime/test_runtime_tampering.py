"""What somebody changed in the image or planted there is refused, told in one line, and learns nothing."""

import os
import subprocess
from pathlib import Path

import pytest
from runtime.shielded import PYTHON, closure_of

SECRET = "print(open('/app/secret.txt').read())"
TRY = """
import os
def attempt(call, *arguments):
    try: return repr(call(*arguments))
    except OSError as error: return os.strerror(error.errno)
read = lambda path: open(path).read()
"""


def _flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _flip(path, 0),
        lambda path: _flip(path, -1),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.write_text("planted plain text"),
    ],
    ids=["first byte", "last byte", "truncated", "extended", "emptied", "removed", "fifo", "directory", "plain"],
)
def test_a_changed_encrypted_file_is_an_input_output_error(run_python, damage):
    done = run_python(TRY + "print(attempt(read, '/app/secret.txt'))", tamper=lambda tree: damage(tree.at("/app/secret.txt")))
    assert (done.returncode, done.stdout) == (0, "Input/output error\n"), done.stderr
    assert done.stderr.count("[SCONE|ERROR]") == 1
    assert "/app/secret.txt was changed after the image was built" in done.stderr


def test_two_files_swapped_on_the_disk_are_both_refused(run_python):
    def swap(tree):
        one, two = tree.at("/app/secret.txt"), tree.at("/app/other.txt")
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)

    done = run_python(
        TRY + "print(attempt(read, '/app/secret.txt'), attempt(read, '/app/other.txt'))",
        prepare=lambda tree: tree.put("/app/other.txt", "bottom line"),
        tamper=swap,
    )
    assert done.stdout == "Input/output error Input/output error\n"


def test_a_planted_file_does_not_exist_and_its_directory_is_not_listed(run_python):
    done = run_python(
        TRY + "print(attempt(read, '/app/planted.py'), attempt(os.stat, '/app/planted.py'), attempt(os.listdir, '/app'))",
        tamper=lambda tree: tree.put("/app/planted.py", "print('evil')"),
    )
    assert done.stdout == "No such file or directory No such file or directory Input/output error\n"
    assert "'planted.py' was added" in done.stderr.replace('"', "'")


def test_a_name_missing_on_the_disk_stops_the_listing(run_python):
    done = run_python(TRY + "print(attempt(os.listdir, '/app'))", tamper=lambda tree: tree.at("/app/secret.txt").unlink())
    assert done.stdout == "Input/output error\n"


def test_symlinks_planted_or_turned_on_the_disk_lead_nowhere(run_python):
    def prepare(tree):
        tree.put("/app/sub/inner.txt", "inner")
        tree.at("/app/turned").symlink_to("sub")

    def tamper(tree):
        tree.put("/evil/inner.txt", "evil")
        tree.put("/evil/secret.txt", "evil")
        tree.at("/app/turned").unlink()
        tree.at("/app/turned").symlink_to("/evil")
        tree.at("/app/sub").rename(tree.at("/app-sub"))
        tree.at("/app/sub").symlink_to("/evil")

    done = run_python(
        TRY
        + """
print(attempt(read, "/app/turned/inner.txt"), attempt(read, "/app/sub/inner.txt"))
print(os.readlink("/app/turned"), attempt(os.chdir, "/app/turned"), attempt(os.chdir, "/app/sub"), attempt(os.listdir, "/app/sub"))
""",
        prepare=prepare,
        tamper=tamper,
    )
    assert (
        done.stdout == "Input/output error Input/output error\nsub Input/output error Input/output error Input/output error\n"
    )
    assert "evil" not in done.stdout


def test_a_directory_above_the_protected_one_can_not_be_turned_into_a_link(run_python):
    def tamper(tree):
        tree.at("/srv").rename(tree.at("/old"))
        tree.put("/evil/data/file", "evil")
        tree.at("/srv").symlink_to("/evil")

    done = run_python(
        TRY + "print(attempt(read, '/srv/data/file'), attempt(os.listdir, '/srv/data'))",
        regions={"/app": "encrypted", "/srv/data": "authenticated"},
        prepare=lambda tree: tree.put("/srv/data/file", "good"),
        tamper=tamper,
    )
    assert done.stdout == "Input/output error Input/output error\n"


def test_an_authenticated_file_is_readable_on_disk_and_verified_when_opened(run_python):
    def run(tamper):
        return run_python(
            TRY + "print(attempt(read, '/srv/data/file'))",
            regions={"/app": "encrypted", "/srv/data": "authenticated"},
            prepare=lambda tree: tree.put("/srv/data/file", "good"),
            tamper=tamper,
        )

    assert run(None).stdout == "'good'\n"
    done = run(lambda tree: tree.put("/srv/data/file", "evil"))
    assert done.stdout == "Input/output error\n"
    assert "/srv/data/file was changed" in done.stderr


@pytest.mark.parametrize("library", ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"])
def test_a_modified_loader_or_libc_stops_the_program(run_python, library):
    real = os.path.realpath(library)

    def tamper(tree):
        tree.put(real, Path(real).read_bytes(), 0o755)
        _flip(tree.at(real), 100_000)

    done = run_python("print('never')", tamper=tamper)
    assert done.returncode != 0
    assert "never" not in done.stdout
    assert f"{real} was changed" in done.stderr or f"its interpreter {real}: damaged" in done.stderr


EVIL_LIBRARY = """
#include <unistd.h>
__attribute__((constructor)) static void evil(void) { write(1, "EVIL\\n", 5); }
"""


def test_a_library_planted_for_the_loader_never_runs(run_python, compiled):
    evil = compiled(EVIL_LIBRARY, "-shared", "-fPIC")

    def tamper(tree):
        tree.put("/evil/libevil.so", evil, 0o755)
        tree.put("/evil/libz.so.1", evil, 0o755)
        tree.put("/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/libm.so.6", evil, 0o755)
        tree.put("/etc/ld.so.preload", "/evil/libevil.so\n")

    done = run_python(
        "print('good')",
        tamper=tamper,
        environment={"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/evil", "LD_PRELOAD": "/evil/libevil.so"},
    )
    assert "EVIL" not in done.stdout
    assert "the library /evil/libevil.so was not loaded: it is not in the manifest" in done.stderr
    # The control: without the protection this very library runs.
    assert "EVIL" in subprocess.run(["true"], env={"LD_PRELOAD": str(evil)}, capture_output=True, text=True, check=False).stdout


def test_dlopen_zero_loads_the_closure_only_and_two_loads_everything(run_python, compiled):
    library = compiled("int answer(void) { return 42; }", "-shared", "-fPIC")
    source = (
        "import os, mmap\n"
        "def load(path):\n"
        "    try: mmap.mmap(os.open(path, os.O_RDONLY), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC); return 'loaded'\n"
        "    except OSError as error: return os.strerror(error.errno)\n"
        "print(load('/app/libx.so'), load('/opt/liby.so'))"
    )

    def run(dlopen):
        def prepare(tree):
            tree.put("/app/libx.so", library)
            tree.put("/opt/liby.so", library)

        # Python's own mmap module is one of its shared objects on Debian: it is in the closure for dlopen=0.
        return run_python(source, prepare=prepare, dlopen=dlopen, closure=_closure_with("mmap"))

    assert run(0).stdout == "Permission denied Permission denied\n"
    assert run(1).stdout == "loaded Permission denied\n"
    assert run(2).stdout == "loaded loaded\n"


def _closure_with(module):
    found = Path("/usr/lib/python3.11/lib-dynload").glob(f"{module}.*")
    return [*closure_of(PYTHON), *map(str, found)]


READER = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char text[64] = {0};
    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_RDONLY);
        if (fd < 0) { printf("%s\\n", strerror(errno)); continue; }
        read(fd, text, 63); printf("%s\\n", text); close(fd);
    }
    return 0;
}
"""


def test_a_program_that_is_not_verified_learns_nothing(run_python, compiled):
    reader = compiled(READER, "-static")
    done = run_python(
        """
import subprocess, os
print(subprocess.run(["/bin/sh", "/app/secret.txt", f"/proc/{os.getpid()}/environ", "/srv/open.txt"], capture_output=True, text=True).stdout)
""",
        regions={"/app": "encrypted", "/srv": "authenticated"},
        prepare=lambda tree: tree.put("/srv/open.txt", "for everybody"),
        tamper=lambda tree: tree.put(os.path.realpath("/bin/sh"), reader, 0o755),
    )
    assert done.stdout == "Permission denied\nPermission denied\nfor everybody\n\n"
    assert "/app/secret.txt is encrypted and refused to process" in done.stderr


def test_an_authenticated_program_reads_and_a_changed_one_does_not_start(run_python, compiled):
    reader = compiled(READER)
    source = (
        TRY
        + "import subprocess\nprint(attempt(lambda: subprocess.run(['/opt/bin/reader', '/app/secret.txt'], capture_output=True, text=True).stdout))"
    )

    def run(tamper, regions=None):
        return run_python(
            source,
            regions=regions or {"/app": "encrypted", "/opt/bin": "authenticated"},
            prepare=lambda tree: tree.put("/opt/bin/reader", reader, 0o755),
            tamper=tamper,
        )

    assert run(None).stdout == "'top secret\\n\\n'\n"
    done = run(lambda tree: tree.put("/opt/bin/reader", compiled(READER, "-static"), 0o755))
    assert done.stdout == "Input/output error\n"
    assert "/opt/bin/reader was not started" in done.stderr
    done = run(None, regions={"/app": "encrypted"})
    assert done.stdout == "'Permission denied\\n'\n"


def test_a_replaced_stub_is_not_started(run_python, compiled):
    done = run_python(
        TRY + "import subprocess\nprint(attempt(subprocess.run, ['/app/tool']))",
        prepare=lambda tree: tree.put("/app/tool", compiled(READER), 0o755),
        tamper=lambda tree: tree.put("/app/tool", compiled('int main() { puts("EVIL"); }', "-static"), 0o755),
    )
    assert done.stdout == "Input/output error\n"
    assert "the runtime at /app/tool was replaced" in done.stderr


def test_calls_that_go_past_the_filter_are_refused(tree, compiled):
    program = compiled(
        """
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    int io = syscall(425, 1, 0) < 0 ? errno : 0;
    int x32 = syscall(0x40000000 | 0, 0, 0, 0) < 0 ? errno : 0;
    int space = unshare(CLONE_NEWNS) < 0 ? errno : 0;
    int user = unshare(CLONE_NEWUSER) < 0 ? errno : 0;
    int trace = ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 ? errno : 0;
    int i386;
    __asm__ volatile("int $0x80" : "=a"(i386) : "a"(20));
    printf("%d %d %d %d %d %d\\n", io, x32, space, user, trace, -i386);
}
""",
        "-static",
    )
    made = tree(binary="/opt/tool", closure=[], command=["/opt/tool"])
    made.put("/opt/tool", program, 0o755)
    made.put("/app/secret.txt", "x")
    made.convert()
    assert made.run().stdout == "38 38 1 1 1 38\n"


@pytest.mark.skipif(
    not Path("/proc/sys/vm/memfd_noexec").exists(), reason="NOT TESTED HERE: this kernel has no vm.memfd_noexec"
)
@pytest.mark.parametrize(("level", "starts"), [(1, True), (2, False)])
def test_a_kernel_that_forbids_programs_from_memory_is_told_of(run_python, level, starts):
    """Level 1 asks for an explicit word, which the runtime gives; level 2 forbids: a clear error, and no program."""
    done = run_python(SECRET, memfd_noexec=level)

    assert (done.returncode == 0) is starts, done.stderr
    assert ("top secret" in done.stdout) is starts
    if not starts:
        (line,) = [line for line in done.stderr.splitlines() if "FATAL" in line]
        assert "vm.memfd_noexec" in line
