"""Images with --binary-fs: a Python program reads its files from the binary, writes to memory, and sees nothing else."""

from __future__ import annotations

import pytest
from main_job.containers import Change, Containers, changed
from main_job.server import serving
from main_job.test_it_serves import LEAST

LEAST_OR_NOT = pytest.mark.parametrize("least", [False, True], ids=["the default profile", "the least privilege"])


@pytest.fixture(scope="session")
def embedded(workshop, native) -> str:
    """Python, its libraries, the API's files and a shell, all in the binary; the base's other files are there to be hidden."""
    return workshop.confidential(
        "embedded",
        native,
        f"--base=docker:{native.base}",
        "--command=python3 -B /app/lab.py",
        "--allow-debug-mode",
        "--binary-fs",
        "--fs-dir=/app",
        "--fs-dir=/tls",
        "--fs-file=/bin/sh",
        "--fs-file=/bin/cat",
        "--host-path=/usr/share",
        "--host-path=/data",
    )


class LocalContainers(Containers):
    """In the host's network, so that no bridge is needed."""

    def run(self, image, program="", *options, **more):
        return super().run(image, program, "--network=host", *options, **more)


@pytest.fixture(scope="module")
def containers(engine, workshop):
    with serving(workshop.home, "127.0.0.2") as cas:
        made = LocalContainers(host=engine.host, cas=cas)
        yield made
        made.forget()


@LEAST_OR_NOT
def test_a_program_imports_reads_and_lists_what_is_embedded(least, embedded, native, containers):
    program = """
import os, ssl, sqlite3, ctypes, json, subprocess, hashlib
os.chdir("/app")
import sys
sys.path.insert(0, "/app")
import package
large = open("/app/first.bin", "rb").read()
at = os.stat("/app/secret.txt")
handle = open("/app/secret.txt")
tell(secret=package.SECRET, link=read("/app/link.txt"), deep=read("deep/er/and/deeper/file"), large=len(large), head=large[:32].decode(),
     listed=sorted(os.listdir("/app/deep")), empty=os.listdir("/app/empty"), cwd=os.getcwd(), target=os.readlink("/app/link.txt"),
     same=os.fstat(handle.fileno()).st_ino == os.stat("/app/secret.txt").st_ino, size=at.st_size, mode=oct(at.st_mode), mtime=int(at.st_mtime),
     sql=sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0], root=sorted(os.listdir("/")),
     walked=sorted(name for _, names, _ in os.walk("/app") for name in names))
"""
    told = containers.run(embedded, program, *(LEAST if least else ())).told
    markers = native.markers
    assert told["secret"] == markers[12]
    assert (told["link"], told["deep"], told["head"]) == (markers[4], markers[11], markers[6])
    assert (told["large"], told["size"], told["mode"], told["mtime"]) == (300_032, 32, "0o100644", 1_600_000_000)
    assert (told["listed"], told["empty"], told["cwd"], told["target"]) == (["er"], [], "/app", "secret.txt")
    assert told["same"]
    assert told["sql"] == 42
    assert {"app", "tls", "tmp", "usr", "proc", "dev"} <= set(told["root"])
    assert not {"boot", "home", "media", "root", "srv"} & set(told["root"])
    assert told["walked"] == ["and", "deep", "deeper", "empty", "er", "package"]


@LEAST_OR_NOT
def test_what_is_written_is_in_memory_and_gone_with_the_container(least, embedded, containers):
    program = """
import os, shutil, sqlite3, tempfile
before = sorted(os.listdir("/tmp"))
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "sub")
    os.mkdir(path, 0o750)
    open(path + "/file", "w").write("written")
    os.rename(path + "/file", path + "/renamed")
    os.link(path + "/renamed", path + "/linked")
    os.symlink("renamed", path + "/symbolic")
    os.chmod(path + "/linked", 0o600)
    os.utime(path + "/linked", (1000, 2000))
    at = os.stat(path + "/renamed")
    facts = dict(listed=sorted(os.listdir(path)), text=read(path + "/symbolic"), mode=oct(at.st_mode), mtime=int(at.st_mtime), links=at.st_nlink,
                 folder=oct(os.stat(path).st_mode), real=os.path.realpath(path + "/symbolic") == path + "/renamed", kinds=[
                     entry.is_symlink() for entry in sorted(os.scandir(path), key=lambda entry: entry.name)])
    os.truncate(path + "/linked", 3)
    facts["short"] = read(path + "/renamed")
    os.unlink(path + "/linked")
    database = sqlite3.connect(folder + "/data.db")
    database.execute("create table t (x)"), database.execute("insert into t values (1)"), database.commit()
    facts["rows"] = sqlite3.connect(folder + "/data.db").execute("select count(*) from t").fetchone()[0]
    shutil.copytree("/app/package", folder + "/copy")
    facts["copied"] = sorted(os.listdir(folder + "/copy"))
gone = not os.path.exists(folder)
os.makedirs("/tmp/new/directories")
mask = os.umask(0o077)
open("/tmp/private", "w").close()
facts |= dict(gone=gone, before=before, after=sorted(os.listdir("/tmp")), private=oct(os.stat("/tmp/private").st_mode),
     exclusive=attempt(os.open, "/tmp/private", os.O_CREAT | os.O_EXCL), missing=attempt(os.open, "/tmp/none", os.O_RDONLY))
tell(**facts)
"""
    for _ in range(2):  # a second container finds nothing of the first
        told = containers.run(embedded, program, *(LEAST if least else ())).told
        assert told == {
            "listed": ["linked", "renamed", "symbolic"], "text": "written", "mode": "0o100600", "mtime": 2000, "links": 2,
            "folder": "0o40750", "real": True, "kinds": [False, False, True], "short": "wri", "rows": 1,
            "copied": ["__init__.py", "data.json"], "gone": True, "before": [], "after": ["new", "private"], "private": "0o100600",
            "exclusive": "File exists", "missing": "No such file or directory",
        }  # fmt: skip


def test_embedded_files_can_be_changed_removed_and_renamed_for_this_container(embedded, native, containers):
    program = """
import os
with open("/app/secret.txt", "a") as file:
    file.write(" and more")
os.rename("/app/other.txt", "/app/moved.txt")
os.unlink("/app/greeting.txt")
os.rename("/app/moved.txt", "/tmp/moved.txt")
open("/app/greeting.txt", "w").write("mine")
os.unlink("/app/empty/none") if os.path.exists("/app/empty/none") else os.rmdir("/app/empty")
open("/app/nothing", "w").write("something")
tell(secret=read("/app/secret.txt"), link=read("/app/link.txt"), moved=read("/tmp/moved.txt"), old=os.path.exists("/app/other.txt"),
     greeting=read("/app/greeting.txt"), empty=os.path.exists("/app/empty"), nothing=read("/app/nothing"),
     full=attempt(os.rmdir, "/app/deep"), directory=attempt(os.rename, "/app/deep", "/app/other"), listed=sorted(os.listdir("/app")))
"""
    told = containers.run(embedded, program).told
    markers = native.markers
    assert told["secret"] == told["link"] == markers[4] + " and more"
    assert (told["moved"], told["greeting"], told["nothing"]) == (markers[5], "mine", "something")
    assert not told["old"]
    assert not told["empty"]
    assert (told["full"], told["directory"]) == ("Directory not empty", "Invalid cross-device link")
    assert {"greeting.txt", "secret.txt", "deep"} <= set(told["listed"])
    assert not {"empty", "other.txt", "moved.txt"} & set(told["listed"])


def test_the_rest_of_the_image_is_hidden_but_for_host_paths(embedded, containers):
    program = """
import glob, os
tell(passwd=attempt(open, "/etc/passwd"), ls=os.path.exists("/bin/ls"), shell=os.path.exists("/bin/sh"), hosts=len(read("/etc/hosts")) > 0,
     resolv=os.path.exists("/etc/resolv.conf"), share=len(os.listdir("/usr/share")) > 0, usr=sorted(os.listdir("/usr")),
     folders=[attempt(os.listdir, found) for found in glob.glob("/dev/shm/.sconify-fs-*")],
     shm=[name for name in os.listdir("/dev/shm") if name.startswith(".sconify-fs-")])
"""
    told = containers.run(embedded, program).told
    assert told["passwd"] == "No such file or directory"
    assert (told["ls"], told["shell"], told["hosts"], told["resolv"], told["share"]) == (False, True, True, True, True)
    assert {"bin", "lib", "share"} <= set(told["usr"])
    assert not {"games", "include", "sbin", "src"} & set(told["usr"])
    assert told["folders"] == ["No such file or directory"] * len(told["shm"])


@LEAST_OR_NOT
def test_a_volume_is_seen_and_written_where_a_host_path_names_it_and_is_not_there_elsewhere(
    least, embedded, containers, tmp_path
):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "given").write_text("from outside")
    volume.chmod(0o777)
    program = """
import os
open("/data/kept", "w").write("from inside")
os.mkdir("/data/folder")
tell(given=read("/data/given"), listed=sorted(os.listdir("/data")), elsewhere=attempt(os.listdir, "/elsewhere"),
     there=os.path.exists("/elsewhere/given"), root="elsewhere" in os.listdir("/"))
"""
    mounts = (f"--volume={volume}:/data", f"--volume={volume}:/elsewhere")
    told = containers.run(embedded, program, *mounts, *(LEAST if least else ())).told
    assert (told["given"], told["listed"]) == ("from outside", ["folder", "given", "kept"])
    assert (told["elsewhere"], told["there"], told["root"]) == ("No such file or directory", False, False)
    assert (volume / "kept").read_text() == "from inside"


def test_programs_that_are_embedded_run_and_others_do_not(embedded, native, containers):
    program = """
import os, subprocess, sys
run = lambda *words: subprocess.run(words, capture_output=True, text=True)
own = run(sys.executable, "-c", "print(open('/app/greeting.txt').read())")
shell = run("/bin/sh", "-c", "cd /tmp && echo from the shell > note && cat note")
script = run("/app/tool.sh")
open("/tmp/planted", "w").write("#!/bin/sh\\necho planted\\n"), os.chmod("/tmp/planted", 0o755)
tell(own=[own.returncode, own.stdout], shell=[shell.returncode, shell.stdout], script=[script.returncode, script.stdout],
     planted=attempt(run, "/tmp/planted"), ls=attempt(run, "/bin/ls"))
"""
    told = containers.run(embedded, program, environment={"SCONE_LOG": "info"}).told
    assert told == {
        "own": [0, "hello from a protected file\n"],
        "shell": [0, "from the shell\n"],
        "script": [0, native.markers[19] + "\n"],
        "planted": "Permission denied",
        "ls": "No such file or directory",
    }


def test_what_cannot_be_done_is_an_error_and_not_a_surprise(embedded, containers):
    """docs/binary-fs.md lists these."""
    program = """
import os, socket
os.mkdir("/tmp/made")
descriptor = os.open("/tmp/made", os.O_RDONLY)
os.fchdir(descriptor)
here = os.getcwd()
open("relative", "w").write("by a descriptor")
os.chdir("/tmp")
tell(chdir=attempt(os.chdir, "/tmp/made"), here=here, listed=os.listdir("/tmp/made"), fifo=attempt(os.mkfifo, "/tmp/pipe"),
     bind=attempt(socket.socket(socket.AF_UNIX).bind, "/tmp/socket"), attribute=attempt(os.setxattr, "/tmp/made/relative", "user.x", b"1"))
"""
    assert containers.run(embedded, program).told == {
        "chdir": "Permission denied", "here": "/tmp/made", "listed": ["relative"], "fifo": "Operation not permitted",
        "bind": "Read-only file system", "attribute": "Operation not supported",
    }  # fmt: skip


def test_a_changed_chunk_is_refused_when_it_is_read_and_everything_else_still_works(embedded, native, containers):
    stored = containers.read(embedded, "/usr/bin/python3.11")
    at = stored.index(native.markers[5].encode())
    program = """
tell(other=attempt(read, "/app/other.txt"), secret=read("/app/secret.txt"))
"""
    change = {"/usr/bin/python3.11": Change(content=changed(stored, at=at), mode=0o755)}
    ended = containers.run(embedded, program, changes=change)
    assert ended.told == {"other": "Input/output error", "secret": native.markers[4]}
    assert "/app/other.txt was changed after the image was built" in ended.stderr


@pytest.mark.parametrize("where", ["index", "header", "config"])
def test_a_binary_whose_measured_part_was_changed_does_not_start(where, embedded, containers):
    stored = containers.read(embedded, "/usr/bin/python3.11")
    at = {
        "index": stored.index(b"/app/deep/er/and/deeper"),
        "header": stored.rindex(b"SCONBNFS") + 16,
        "config": stored.index(b'"binary_fs":"') + 14,
    }
    change = {"/usr/bin/python3.11": Change(content=changed(stored, at=at[where]), mode=0o755)}
    ended = containers.run(embedded, "print('ran')", changes=change)
    assert (ended.started, ended.status) == (False, 1)
    assert "modified" in ended.stderr


def test_without_a_file_system_in_memory_the_start_says_what_to_do(embedded, containers):
    ended = containers.run(embedded, "", "--ipc=none")
    assert (ended.started, ended.status) == (False, 1)
    assert "--ipc=none" in ended.stderr
    assert containers.run(embedded, "import os; tell(made=os.listdir('/tmp'))", "--ipc=none", "--tmpfs=/run").told == {
        "made": []
    }


def test_memory_that_is_full_is_said(embedded, containers):
    ended = containers.run(embedded, "tell(full=attempt(open('/tmp/big', 'wb', 0).write, bytes(9 << 20)))", "--shm-size=4m")
    assert ended.told["full"] == "No space left on device" or ended.told["full"] < 9 << 20


def test_who_drops_root_has_the_rights_of_its_groups_in_memory_and_none_of_the_containers(embedded, containers):
    program = """
import json, os
for name, group in (("shared", 33), ("ours", 44)):
    os.mkdir(f"/app/{name}"); os.chown(f"/app/{name}", 0, group); os.chmod(f"/app/{name}", 0o770)
os.mkdir("/app/mine"); os.chown("/app/mine", 1000, 1000); os.chmod("/app/mine", 0o700)
def attempt(name):
    try:
        open(f"/app/{name}/file", "w").write(name)
    except OSError as error:
        return error.strerror
    at = os.stat(f"/app/{name}/file")
    return [open(f"/app/{name}/file").read(), at.st_uid, at.st_gid]
def dropped(groups):
    out, into = os.pipe()
    if os.fork() == 0:
        os.setgroups(groups); os.setgid(1000); os.setuid(1000)
        told = [attempt("shared"), attempt("ours"), attempt("mine"), os.access("/app/shared", os.W_OK)]
        os.write(into, json.dumps(told).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(out, 4096))
tell(none=dropped([]), one=dropped([33]), root=attempt("shared"))
"""
    run = containers.run(embedded, program, "--group-add=44")
    mine = ["mine", 1000, 1000]
    assert run.told["none"] == ["Permission denied", "Permission denied", mine, False]
    assert run.told["one"] == [["shared", 1000, 1000], "Permission denied", mine, True]
    assert run.told["root"][0] == "shared"
