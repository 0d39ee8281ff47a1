"""Many opens from several threads while timer signals fly: every single one is right.

Without blocked signals on the supervisor's threads, its scheduler's preemption signal made open() return 0 in most runs.
"""

import pytest

PROGRAM = """
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#define FILES 40
#define THREADS 4
static int opens, wrong, fired;
static void tick(int s) { fired++; }
static void *work(void *arg) {
    long seed = (long)arg;
    for (int i = 0; i < opens; i++) {
        char path[64], expected[64], got[64] = {0};
        struct stat by_path, by_fd;
        int n = (i * 7 + seed * 13) % FILES;
        snprintf(path, 64, "/app/file%d", n);
        snprintf(expected, 64, "content of file %d", n);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd <= 2) { __sync_fetch_and_add(&wrong, 1); fprintf(stderr, "open %s: %d errno %d\\n", path, fd, errno); continue; }
        ssize_t size = read(fd, got, 63);
        if (size != (ssize_t)strlen(expected) || strcmp(got, expected)) { __sync_fetch_and_add(&wrong, 1); fprintf(stderr, "read %s\\n", path); }
        if (i % 16 == 0) {
            if (fstat(fd, &by_fd) || stat(path, &by_path) || by_fd.st_size != by_path.st_size || by_fd.st_mtime != by_path.st_mtime)
                { __sync_fetch_and_add(&wrong, 1); fprintf(stderr, "stat %s\\n", path); }
            if (open("/app/none", O_RDONLY) != -1 || errno != ENOENT) { __sync_fetch_and_add(&wrong, 1); fprintf(stderr, "none\\n"); }
        }
        close(fd);
    }
    return 0;
}
int main(int argc, char **argv) {
    struct itimerval every = {{0, 300}, {0, 300}};
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    pthread_t threads[THREADS];
    opens = atoi(argv[1]) / THREADS;
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &every, 0);
    for (long t = 0; t < THREADS; t++) pthread_create(&threads[t], 0, work, (void *)t);
    for (int t = 0; t < THREADS; t++) pthread_join(threads[t], 0);
    printf("%d wrong, %s\\n", wrong, fired > 100 ? "signals" : "no signals");
    return wrong != 0;
}
"""


@pytest.mark.parametrize("opens", [100_000])
def test_a_hundred_thousand_opens_under_timer_signals_are_all_right(tree, compiled, opens):
    program = compiled(PROGRAM, "-static", "-pthread")
    made = tree(binary="/opt/stress", closure=[], command=["/opt/stress", str(opens)])
    made.put("/opt/stress", program, 0o755)
    for number in range(40):
        made.put(f"/app/file{number}", f"content of file {number}")
    made.convert()
    done = made.run(timeout=120)
    assert (done.stdout, done.stderr) == ("0 wrong, signals\n", "")


def test_files_beyond_the_memory_budget_stay_right_while_they_are_replaced(run_python):
    done = run_python(
        """
import mmap, os
kept = mmap.mmap(os.open("/app/big0", os.O_RDONLY), 0, prot=mmap.PROT_READ)
first = os.stat("/app/big0").st_ino
for turn in range(2):
    for number in range(16):
        with open(f"/app/big{number}", "rb") as file:
            assert file.read(8) == bytes([number]) * 8
            file.seek(-8, 2)
            assert file.read() == bytes([number]) * 8
assert kept[:8] == bytes(8) and kept[-8:] == bytes(8)
assert os.stat("/app/big0").st_ino == first, "a mapped file must keep its inode"
print("fine")
""",
        prepare=lambda tree: [tree.put(f"/app/big{number}", bytes([number]) * 6_000_000) for number in range(16)],
        dlopen=2,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_programs_beyond_the_memory_budget_keep_running_and_start_again(run_python, compiled):
    program = compiled(
        "#include <unistd.h>\nstatic const char pad[24 << 20] = {1};\n"
        'int main(int c, char **v) { write(1, pad, 1); if (c > 1) read(0, v[1], 1); char e[99]; return readlink("/proc/self/exe", e, 98) != 10; }'
    )
    done = run_python(
        """
import subprocess
running = subprocess.Popen(["/app/tool0", "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert running.stdout.read(1) == b"\\1"
for turn in range(2):
    for number in range(5):
        done = subprocess.run([f"/app/tool{number}"], capture_output=True)
        assert (done.returncode, done.stdout) == (0, b"\\1"), (number, done)
running.communicate(b"x")
print(running.returncode)
""",
        prepare=lambda tree: [tree.put(f"/app/tool{number}", program, 0o755) for number in range(5)],
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
