"""Compiled programs of all kinds after conversion, in Docker: linked in every way, for glibc and for musl; and those refused."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from services.conftest import LEAST, MODES, SECRET, USERS, Lab

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef LIBRARY
int answer(void);
#else
static int answer(void) { return 42; }
#endif
static char secret[100];
static void *reads(void *none) {
    FILE *file = fopen("/app/secret.txt", "r");
    if (file && fgets(secret, sizeof secret, file)) secret[strcspn(secret, "\n")] = 0;
    return none;
}
int main(int count, char **words) {
    pthread_t thread;
    pthread_create(&thread, 0, reads, 0);
    pthread_join(thread, 0);
    int status = 1;
    pid_t child = fork();
    if (!child) _exit(access("/app/secret.txt", R_OK) ? 1 : 0);
    waitpid(child, &status, 0);
    printf("{\"secret\": \"%s\", \"answer\": %d, \"child\": %d, \"words\": %d}\n", secret, answer(), status, count);
}
"""
LIBRARY = "int answer(void) { return 42; }"
TOLD = {"secret": SECRET, "answer": 42, "child": 0, "words": 2}
KINDS = {
    "dynamic PIE with a library of its own": ("-pie", "-fPIE", "-DLIBRARY", "-Wl,-rpath,$ORIGIN/../lib"),
    "dynamic at a fixed address": ("-no-pie",),
    "static": ("-static",),
    "static PIE": ("-static-pie", "-fPIE"),
    "stripped": ("-pie", "-fPIE", "-s"),
    "without section headers": ("-pie", "-fPIE"),
}
EMBEDDED = ("dynamic PIE with a library of its own", "static")
# Where the libraries are not embedded, they are copied, and verified by digests that are measured with the embedded files.
BESIDE = {"dir": MODES["dir"], "binary-fs": (*MODES["binary-fs"], "--disable-binary-fs-defaults")}

# As the help says, these are not enforced in simulation: the program has two threads, forks, and has its pages protected by ld.so.
MEASURED_ONLY = ("--threads=1", "--fork=0", "--mprotect=0", "--heap=4K", "--stack=4K")


def compiled(root: Path, compiler: str, *arguments: str) -> None:
    """The program at /opt/bin/program and, where it is asked for, its library at /opt/lib."""
    for folder in ("opt/bin", "opt/lib", "app", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "app" / "secret.txt").write_text(SECRET + "\n")
    more: list[str] = []
    if "-DLIBRARY" in arguments:
        library = root / "opt/lib/libanswer.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-Wl,-soname,libanswer.so", "-x", "c", "-", "-o", library],
            input=LIBRARY.encode(),
            check=True,
        )
        more = ["-x", "none", str(library)]
    command = [compiler, "-x", "c", "-", "-o", str(root / "opt/bin/program"), "-pthread", *more, *arguments]
    subprocess.run(command, input=PROGRAM.encode(), check=True)


def with_glibc(root: Path) -> None:
    """This machine's C library and loader, where the loader is looked for."""
    for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"):
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(path).resolve(), target)


def converted(lab: Lab, root: Path, *arguments: str) -> str:
    return lab.convert("program", "--binary=/opt/bin/program", "--command=/opt/bin/program x", *arguments, source=f"dir:{root}")


@pytest.mark.parametrize(("kind", "mode"), [*((kind, "dir") for kind in KINDS), *((kind, "binary-fs") for kind in EMBEDDED)])
def test_a_program_reads_its_secret_however_it_is_linked(kind, mode, lab, need, tmp_path):
    compiled(tmp_path, need("gcc"), *KINDS[kind])
    if kind == "without section headers":
        without_sections(tmp_path / "opt/bin/program")
    with_glibc(tmp_path)
    image = converted(lab, tmp_path, *MODES[mode])
    for options in USERS.values():
        assert lab.run(image, *options).told == TOLD


def test_a_go_program_reads_its_secret(lab, tmp_path, go_program_with_secret):
    for folder in ("opt/bin", "app", "tmp"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "app" / "secret.txt").write_text(SECRET)
    shutil.copy(go_program_with_secret, tmp_path / "opt/bin/program")
    assert lab.run(converted(lab, tmp_path, "--dir=/app"), *LEAST).stdout == SECRET


@pytest.mark.parametrize("mode", MODES)
def test_a_musl_program_finds_its_library_by_musl_s_rules(mode, lab, need, tmp_path):
    compiled(tmp_path, need("musl-gcc"), "-DLIBRARY")
    (tmp_path / "lib").mkdir()
    shutil.copy(Path("/lib/ld-musl-x86_64.so.1").resolve(), tmp_path / "lib/ld-musl-x86_64.so.1")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld-musl-x86_64.path").write_text("/lib\n/opt/lib\n")
    image = converted(lab, tmp_path, *MODES[mode], "--disable-ld-library-path-in-session")
    for options in USERS.values():
        assert lab.run(image, *options).told == TOLD


def test_the_libraries_are_beside_what_is_encrypted_or_embedded_and_the_program_finds_them(with_library, lab):
    for options in USERS.values():
        assert lab.run(with_library, *options).told == TOLD


@pytest.mark.parametrize("library", ["/opt/lib/libanswer.so", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"])
def test_a_library_that_was_changed_in_the_image_is_refused(library, with_library, lab):
    from main_job.containers import Change, changed

    stored = lab.containers.read(with_library, library)
    change = {library: Change(content=changed(stored, at=len(stored) - 1), mode=0o755)}
    ended = lab.containers.run(with_library, "", "--network=host", changes=change)
    assert ended.status != 0
    assert SECRET not in ended.stdout
    assert library in ended.stderr


@pytest.fixture(scope="module", params=BESIDE)
def with_library(request, lab, need, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    compiled(root, need("gcc"), *KINDS["dynamic PIE with a library of its own"])
    with_glibc(root)
    return converted(lab, root, *BESIDE[request.param], *MEASURED_ONLY)


@pytest.fixture(scope="module")
def go_program_with_secret(tmp_path_factory):
    import sys

    folder = tmp_path_factory.mktemp("go")
    text = 'package main\n\nimport "os"\n\nfunc main() {\n\tdata, _ := os.ReadFile("/app/secret.txt")\n\tos.Stdout.Write(data)\n}\n'
    (folder / "main.go").write_text(text)
    (folder / "go.mod").write_text("module secret\n\ngo 1.24\n")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    subprocess.run([Path(sys.executable).parent / "go", "build", "-o", "program", "."], cwd=folder, env=environment, check=True)
    return folder / "program"


def without_sections(program: Path) -> None:
    data = bytearray(program.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 0x28)
    data[0x28:0x30], data[0x3C:0x40] = bytes(8), bytes(4)
    program.write_bytes(data[:table])


REFUSED = {
    "a 32-bit program": ({4: b"\x01", 18: b"\x03\x00"}, "is a 32-bit program"),
    "an x32 program": ({4: b"\x01"}, "is an x32 program"),
    "a program of another architecture": ({18: b"\xb7\x00"}, "is built for aarch64, and the image for amd64"),
    "a big-endian program": ({5: b"\x02"}, "is a big-endian program"),
    "an object file": ({16: b"\x01\x00"}, "can't be run"),
    "a truncated program": ({}, "malformed"),
    "a text": ({0: b"text"}, "is not an ELF file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_run_is_refused_with_the_reason_and_leaves_nothing(kind, workshop, need, tmp_path):
    changes, message = REFUSED[kind]
    root = tmp_path / "root"
    compiled(root, need("gcc"), "-pie", "-fPIE")
    data = bytearray((root / "opt/bin/program").read_bytes())
    for at, value in changes.items():
        data[at : at + len(value)] = value
    (root / "opt/bin/program").write_bytes(data[:200] if kind == "a truncated program" else data)
    done = workshop.sconify(
        f"--from=dir:{root}",
        f"--to=oci:{tmp_path}/out",
        "--base=scratch",
        "--binary=/opt/bin/program",
        "--command=/opt/bin/program",
    )
    assert (done.status, done.stdout) == (2, "")
    assert message in done.stderr
    assert "/opt/bin/program" in done.stderr
    assert not (tmp_path / "out").exists()
