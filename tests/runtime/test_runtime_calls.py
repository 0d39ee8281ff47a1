"""openat2, extended attributes and special files under the shield: what the kernel says natively, or a refusal."""

import os
import stat

OPENAT2 = """
import ctypes, errno, os, stat
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, CACHED = (1 << bit for bit in range(6))
def openat2(directory, name, flags=os.O_RDONLY, resolve=0, mode=0, size=24):
    how = (ctypes.c_uint64 * 4)(flags, mode, resolve, 0)
    fd = libc.syscall(437, directory, name.encode(), ctypes.byref(how), ctypes.c_size_t(size))
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    try:
        return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)
app = os.open("/app", os.O_PATH | os.O_DIRECTORY)
print(openat2(-100, "/app/secret.txt"), openat2(app, "secret.txt"), openat2(app, "sub"))
print(openat2(app, "sub/link", resolve=NO_SYMLINKS), openat2(app, "sub/link", resolve=BENEATH), openat2(app, "sub/link"))
print(openat2(app, "../app/secret.txt", resolve=BENEATH), openat2(app, "/app/secret.txt", resolve=BENEATH))
print(openat2(app, "/secret.txt", resolve=IN_ROOT), openat2(app, "../../secret.txt", resolve=IN_ROOT), openat2(app, "absolute", resolve=IN_ROOT))
print(openat2(app, "absolute", resolve=BENEATH), openat2(app, "absolute"))
print(openat2(app, "secret.txt", flags=os.O_RDWR), openat2(app, "new", flags=os.O_CREAT | os.O_WRONLY, mode=0o600))
print(openat2(app, "secret.txt", resolve=1 << 20), openat2(app, "secret.txt", size=8), openat2(app, "none"))
print(openat2(-100, "/proc/self/fd/%d/secret.txt" % app), openat2(-100, "/proc/self/fd/%d/secret.txt" % app, resolve=NO_MAGICLINKS))
proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
print(openat2(app, "secret.txt", resolve=NO_XDEV), openat2(app, "sub/link", resolve=NO_XDEV), openat2(proc, "/app/secret.txt", resolve=NO_XDEV))
print(openat2(proc, "../app/secret.txt"), openat2(proc, "../app/secret.txt", resolve=NO_XDEV), openat2(app, "../proc/version", resolve=NO_XDEV))
"""


def test_openat2_resolves_protected_paths_as_the_kernel_does(run_python):
    def prepare(tree):
        tree.at("/app/sub").mkdir(parents=True)
        tree.at("/app/sub/link").symlink_to("../secret.txt")
        tree.at("/app/absolute").symlink_to("/app/secret.txt")

    done = run_python(OPENAT2, prepare=prepare, dlopen=2)
    assert done.stdout.splitlines() == [
        "top secret top secret directory",
        "ELOOP top secret top secret",
        "EXDEV EXDEV",
        "top secret top secret ENOENT",
        "EXDEV top secret",
        "EROFS EROFS",
        "EINVAL EINVAL ENOENT",
        "top secret ELOOP",
        "top secret top secret top secret",
        "top secret EXDEV EXDEV",
    ], done
    assert done.stderr == ""


XATTRS = """
import ctypes, errno, os
def attempt(call, *arguments, **named):
    try:
        return call(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno]
for path in ("/app/secret.txt", "/app/link", "/app/sub", "/app/plain.txt"):
    print(sorted(os.listxattr(path)), [os.getxattr(path, name) for name in sorted(os.listxattr(path))])
print(os.listxattr("/app/link", follow_symlinks=False), attempt(os.getxattr, "/app/link", "user.text", follow_symlinks=False))
print(attempt(os.getxattr, "/app/secret.txt", "user.none"), attempt(os.getxattr, "/app/none", "user.text"))
print(attempt(os.setxattr, "/app/secret.txt", "user.text", b"other"), attempt(os.removexattr, "/app/secret.txt", "user.text"))
libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
def raw(call, *arguments):
    result = call(*arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result
print(raw(libc.getxattr, b"/app/secret.txt", b"user.text", None, 0), raw(libc.getxattr, b"/app/secret.txt", b"user.text", buffer, 3))
print(raw(libc.listxattr, b"/app/secret.txt", None, 0), raw(libc.listxattr, b"/app/secret.txt", buffer, 8))
"""


def test_extended_attributes_are_the_manifests_whatever_the_disk_says(run_python):
    def prepare(tree):
        tree.at("/app/sub").mkdir(parents=True)
        tree.put("/app/secret.txt", "top secret\n")
        tree.put("/app/plain.txt", "")
        tree.at("/app/link").symlink_to("secret.txt")
        os.setxattr(tree.at("/app/secret.txt"), "user.text", b"some text")
        os.setxattr(tree.at("/app/secret.txt"), "user.bytes", bytes(range(0, 256, 17)))
        os.setxattr(tree.at("/app/sub"), "user.of", b"a directory")

    def tamper(tree):
        os.setxattr(tree.at("/app/secret.txt"), "user.text", b"forged")
        os.setxattr(tree.at("/app/plain.txt"), "user.planted", b"forged")

    done = run_python(XATTRS, prepare=prepare, tamper=tamper, dlopen=2)
    both = f"['user.bytes', 'user.text'] [{bytes(range(0, 256, 17))!r}, b'some text']"
    assert done.stdout.splitlines() == [
        both,
        both,
        "['user.of'] [b'a directory']",
        "[] []",
        "[] ENODATA",
        "ENODATA ENOENT",
        "EROFS EROFS",
        "9 ERANGE",
        "21 ERANGE",
    ], done
    assert done.stderr == ""


DEVICES = """
import os, stat
def attempt(path):
    try:
        with open(path, "rb") as file:
            return file.read(2)
    except OSError as error:
        return error.strerror
at = os.stat("/app/zero")
print(stat.S_ISCHR(at.st_mode), oct(at.st_mode & 0o7777), os.major(at.st_rdev), os.minor(at.st_rdev))
print(stat.S_ISFIFO(os.stat("/app/fifo").st_mode), attempt("/app/zero"), attempt("/app/forged"))
child = os.fork()
if child == 0:
    open("/app/fifo", "w").write("through")
    os._exit(0)
print(open("/app/fifo").read(), sorted(os.listdir("/app")))
os.wait()
"""


def test_devices_and_fifos_are_opened_where_the_disk_has_the_manifests(run_python):
    def prepare(tree):
        tree.at("/app").mkdir(parents=True, exist_ok=True)
        for name in ("zero", "forged"):
            os.mknod(tree.at(f"/app/{name}"), stat.S_IFCHR | 0o600, os.makedev(1, 5))
        os.mkfifo(tree.at("/app/fifo"))

    def tamper(tree):
        tree.at("/app/forged").unlink()
        os.mknod(tree.at("/app/forged"), stat.S_IFCHR | 0o600, os.makedev(1, 9))

    done = run_python(DEVICES, prepare=prepare, tamper=tamper)
    assert done.stdout.splitlines() == [
        "True 0o600 1 5",
        "True b'\\x00\\x00' Input/output error",
        "through ['fifo', 'forged', 'main.py', 'secret.txt', 'zero']",
    ], done
    assert "/app/forged is not on the disk what the manifest says: access refused" in done.stderr
