/* A disk that fails, or a machine that dies, at a chosen moment: loaded into a process with LD_PRELOAD.
 *
 * Once armed (fault_arm), counts the calls that change anything below some folders (a colon-separated list), over all threads
 * and over all processes that are forked from then on.
 * The call of a chosen number fails with a chosen error, and all later ones if it is to stay: then, as on a disk that fills up,
 * a write of more than one byte first does half of it. Or a signal is sent before the call, to the process that was armed or to
 * the one that writes. Each counted call from the chosen one on is a line in the log, if there is to be one. Everything that
 * writes goes through the C library (CPython, SQLite, OpenSSL's files); a test compares the log with what the kernel was asked
 * (strace).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long *calls;
static long at = -1;
static int error, stays, by_signal, to_writer, log_to = -1;
static pid_t armed;
static char folder_list[PATH_MAX];
static const char *folders;

/* Count anew from now on, in this process and in those that it forks. */
void fault_arm(const char *below_folders, long number, int with_error, int from_then_on, int signal_number, int signal_to_writer,
               const char *log) {
    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED) abort();
    at = number;
    error = with_error;
    stays = from_then_on;
    by_signal = signal_number;
    to_writer = signal_to_writer;
    armed = getpid();
    if (log && *log) log_to = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    snprintf(folder_list, sizeof folder_list, "%s", below_folders);
    folders = folder_list;
}

static int below(const char *path) {
    for (const char *folder = folders; folder && *folder;) {
        size_t length = strcspn(folder, ":");
        if (length && !strncmp(path, folder, length) && (path[length] == '/' || path[length] == 0)) return 1;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

static int absolute(int folder, const char *path, char *into) {
    char link[64];
    ssize_t length = 0;
    if (path[0] == '/') return snprintf(into, PATH_MAX, "%s", path) < PATH_MAX;
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, into, PATH_MAX) < 0) return 0;
        length = (ssize_t)strlen(into);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if ((length = syscall(SYS_readlink, link, into, PATH_MAX - 1)) < 0) return 0;
    }
    return snprintf(into + length, (size_t)(PATH_MAX - length), "/%s", path) < PATH_MAX - length;
}

/* Whether the call is to fail, with errno set: 2 for the chosen one, 1 for a later one. */
static int fails(const char *name, const char *path) {
    if (!folders || !below(path)) return 0;
    long number = ++*calls;
    if (log_to >= 0 && number >= at) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path);
        if (syscall(SYS_write, log_to, line, length) < 0) abort();
    }
    if (at < 0 || (number != at && !(stays && number > at))) return 0;
    if (by_signal) {
        syscall(SYS_kill, to_writer ? getpid() : armed, by_signal);
        return 0;
    }
    errno = error;
    return number == at ? 2 : 1;
}

static int fails_at(const char *name, int folder, const char *path) {
    char full[PATH_MAX];
    int before = errno;
    if (!path || !absolute(folder, path, full)) return 0;
    int failed = fails(name, full);
    if (!failed) errno = before;
    return failed;
}

static int fails_fd(const char *name, int descriptor) {
    char link[64], full[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlink, link, full, PATH_MAX - 1);
    if (length < 0) {
        errno = before;
        return 0;
    }
    full[length] = 0;
    int failed = fails(name, full);
    if (!failed) errno = before;
    return failed;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

#define ON_DESCRIPTOR(type, name, descriptor, parameters, arguments) \
    type name parameters { \
        REAL(name); \
        return fails_fd(#name, descriptor) ? (type)-1 : real arguments; \
    }

#define WRITES(name, parameters, arguments) \
    ssize_t name parameters { \
        REAL(name); \
        int failed = fails_fd(#name, fd); \
        if (failed != 2 || !stays || size < 2) return failed ? -1 : real arguments; \
        size /= 2; \
        return real arguments; \
    }
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset))

ON_DESCRIPTOR(ssize_t, writev, fd, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_DESCRIPTOR(ssize_t, pwritev, fd, (int fd, const struct iovec *parts, int count, off_t offset), (fd, parts, count, offset))
ON_DESCRIPTOR(ssize_t, copy_file_range, to, (int from, off64_t *from_offset, int to, off64_t *offset, size_t size, unsigned flags),
              (from, from_offset, to, offset, size, flags))
ON_DESCRIPTOR(ssize_t, sendfile, to, (int to, int from, off_t *offset, size_t size), (to, from, offset, size))
ON_DESCRIPTOR(ssize_t, sendfile64, to, (int to, int from, off64_t *offset, size_t size), (to, from, offset, size))
ON_DESCRIPTOR(int, fsync, fd, (int fd), (fd))
ON_DESCRIPTOR(int, fdatasync, fd, (int fd), (fd))
ON_DESCRIPTOR(int, ftruncate, fd, (int fd, off_t size), (fd, size))
ON_DESCRIPTOR(int, ftruncate64, fd, (int fd, off64_t size), (fd, size))
ON_DESCRIPTOR(int, fallocate, fd, (int fd, int mode, off_t offset, off_t size), (fd, mode, offset, size))
ON_DESCRIPTOR(int, fchmod, fd, (int fd, mode_t mode), (fd, mode))
ON_DESCRIPTOR(int, futimens, fd, (int fd, const struct timespec times[2]), (fd, times))

#define ON_PATH(name, folder, path, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return fails_at(#name, folder, path) ? -1 : real arguments; \
    }
ON_PATH(rename, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(renameat, folder, to, (int source, const char *from, int folder, const char *to), (source, from, folder, to))
ON_PATH(link, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(linkat, folder, to, (int source, const char *from, int folder, const char *to, int flags), (source, from, folder, to, flags))
ON_PATH(symlink, AT_FDCWD, path, (const char *target, const char *path), (target, path))
ON_PATH(symlinkat, folder, path, (const char *target, int folder, const char *path), (target, folder, path))
ON_PATH(mkdir, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, folder, path, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(chmod, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(fchmodat, folder, path, (int folder, const char *path, mode_t mode, int flags), (folder, path, mode, flags))
ON_PATH(utimensat, folder, path, (int folder, const char *path, const struct timespec times[2], int flags), (folder, path, times, flags))

/* To remove something needs no space: these are moments to die at, and never fail. */
#define REMOVES(name, folder, path, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return by_signal && fails_at(#name, folder, path) ? -1 : real arguments; \
    }
REMOVES(unlink, AT_FDCWD, path, (const char *path), (path))
REMOVES(unlinkat, folder, path, (int folder, const char *path, int flags), (folder, path, flags))
REMOVES(rmdir, AT_FDCWD, path, (const char *path), (path))

#define OPENS(name, first, folder, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
            if (fails_at(#name, folder, path)) return -1; \
        } \
        return real arguments; \
    }
OPENS(open, path, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, path, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, folder, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENS(openat64, folder, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
