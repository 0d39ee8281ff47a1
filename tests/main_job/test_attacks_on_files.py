"""What is changed on the disk under a running program gives no content: EIO, EACCES or ENOENT, and one line in the log."""

import re

import pytest
from main_job.containers import Change, changed

EIO, EACCES, ENOENT = "Input/output error", "Permission denied", "No such file or directory"
READ = "tell(**{path: attempt(read, path) for path in %r})"


def _read(containers, image, paths, **changes):
    return containers.run(image, READ % (list(paths),), **changes)


def test_a_flipped_bit_anywhere_in_a_ciphertext(lab, containers):
    """One file is damaged in each place in turn: first, last, both sides of a chunk's border, inside a tag."""
    places = {
        "first.bin": 0,
        "last.bin": -1,
        "middle.bin": 65535,
        "repeated.txt": 70,
        ".hidden": 5,
        "secret.txt": 40,
        "other.txt": -16,
    }
    changes = {
        f"/app/{name}": Change(content=changed(containers.read(lab, f"/app/{name}"), at=at)) for name, at in places.items()
    }
    ended = _read(containers, lab, changes, changes=changes)
    assert ended.told == dict.fromkeys(changes, EIO)
    for path in changes:
        assert ended.stderr.count(f"{path} was changed after the image was built") == 1


def test_swapped_truncated_emptied_and_plain_files(lab, containers, native):
    key, certificate = containers.read(lab, "/tls/api.key"), containers.read(lab, "/tls/api.crt")
    secret, other = containers.read(lab, "/app/secret.txt"), containers.read(lab, "/app/other.txt")
    assert len(secret) == len(other)
    changes = {
        "/app/secret.txt": Change(content=other),
        "/app/other.txt": Change(content=secret),
        "/tls/api.key": Change(content=key[:-1]),
        "/tls/api.crt": Change(content=b""),
        "/tls/private/ca.key": Change(content=containers.read(lab, "/tls/private/ca.key") + certificate),
        "/app/.hidden": Change(content=native.markers[10].encode()),
        "/app/first.bin": Change(content=containers.read(lab, "/app/last.bin")),
        "/app/middle.bin": Change(content=containers.read(lab, "/app/middle.bin")[: 65536 + 16]),
    }
    assert _read(containers, lab, changes, changes=changes).told == dict.fromkeys(changes, EIO)


def test_the_old_version_of_a_file_comes_with_the_same_key_and_is_refused(lab, containers, native, workshop):
    """Content that was encrypted under the very same key, for another path: only the manifest says what belongs where."""
    same_key = {"/app/package/data.json": Change(content=containers.read(lab, "/app/package/__init__.py"))}
    assert _read(containers, lab, same_key, changes=same_key).told == dict.fromkeys(same_key, EIO)


PLANTED = "tell(read=attempt(read, '/app/package/planted.py'), list=attempt(__import__('os').listdir, '/app/package'), rest=read('/app/other.txt'))"


def test_a_planted_file_is_not_there_and_its_directory_not_listed(lab, containers, native):
    told = containers.run(lab, PLANTED, changes={"/app/package/planted.py": Change(content=b"print('evil')")}).told
    assert told == {"read": ENOENT, "list": EIO, "rest": native.markers[5]}


def test_a_link_in_place_of_a_file(lab, containers):
    changes = {
        "/evil.txt": Change(content=b"evil"),
        "/app/package/data.json": Change(target="/evil.txt"),
        "/app/deep/er/and/deeper/file": Change(target="/app/other.txt"),
        "/tls/api.crt": Change(target="api.key"),
    }
    paths = [path for path in changes if path != "/evil.txt"]
    assert _read(containers, lab, paths, changes=changes).told == dict.fromkeys(paths, EIO)


def test_a_protected_link_leads_where_the_manifest_says_and_not_where_the_disk_says(lab, containers, native):
    changes = {"/evil.txt": Change(content=b"evil"), "/app/link.txt": Change(target="/evil.txt")}
    program = "import os; tell(target=os.readlink('/app/link.txt'), content=attempt(read, '/app/link.txt'))"
    told = containers.run(lab, program, changes=changes).told
    assert told == {"target": "secret.txt", "content": native.markers[4]}


@pytest.fixture(scope="module")
def disarranged(lab, containers):
    """One image on whose disk names are gone, moved and turned into links, by programs of its base."""
    script = """
        mkdir -p /opt /opt/evil/er && echo evil >/opt/evil/ca.key && echo evil >/opt/evil/er/file
        rm /app/package/data.json
        mv /tls/api.key /tls/api.old
        mv /tls/private /opt/private && ln -s /opt/evil /tls/private
        mv /app/deep/er /opt/er && ln -s /opt/evil/er /app/deep/er
    """
    return containers.derive(lab, "/bin/sh", "-ec", script)


def test_a_deleted_a_renamed_and_a_replaced_file(disarranged, containers):
    paths = (
        "/app/package/data.json",
        "/tls/api.key",
        "/tls/api.old",
        "/tls/private/ca.key",
        "/app/deep/er/and/deeper/file",
        "/app/deep/er/file",
    )
    program = f"import os; tell(read={{p: attempt(read, p) for p in {paths}}}, list={{p: attempt(os.listdir, p) for p in ('/tls', '/app/package', '/tls/private')}})"
    ended = containers.run(disarranged, program)
    assert ended.told["list"] == dict.fromkeys(("/tls", "/app/package", "/tls/private"), EIO)
    assert ended.told["read"] == dict(zip(paths, (EIO, EIO, ENOENT, EIO, EIO, ENOENT), strict=True))
    assert "evil" not in ended.stdout


def test_a_link_in_place_of_a_protected_directory(lab, containers):
    linked = containers.derive(
        lab, "/bin/sh", "-ec", "mkdir -p /opt/evil && mv /tls /opt/old && echo evil >/opt/evil/api.key && ln -s /opt/evil /tls"
    )
    ended = containers.run(linked, READ % (["/tls/api.key", "/tls/api.crt"],))
    assert ended.told == {"/tls/api.key": EIO, "/tls/api.crt": EIO}
    linked = containers.derive(lab, "/bin/sh", "-ec", "mkdir -p /opt && mv /app /opt/app && ln -s /opt/app /app")
    ended = containers.run(linked, "tell()")
    assert (ended.started, ended.status != 0) == (False, True)
    assert "/app" in ended.stderr


def test_a_modified_shell_learns_nothing(lab, containers, native):
    """A copy of another program of the base stands in for a shell of the attacker: it reads, and is refused."""
    evil = containers.read(lab, "/bin/cat")
    program = """
import subprocess
shell = subprocess.run(["/bin/sh", "/app/secret.txt"], capture_output=True, text=True)
tell(status=shell.returncode, out=shell.stdout, err=shell.stderr)
"""
    ended = containers.run(lab, program, changes={"/bin/dash": Change(content=evil, mode=0o755)})
    assert ended.told["out"] == ""
    assert ended.told["status"] != 0
    assert native.markers[4] not in ended.stdout + ended.stderr
    assert "/app/secret.txt is encrypted and refused to process" in ended.stderr


def test_a_program_that_nobody_verified_learns_nothing(lab, containers, native):
    """As above with the base's own programs: they are not in the manifest."""
    program = "import subprocess; tell(out=subprocess.run(['/bin/cat', '/tls/api.key', '/app/secret.txt'], capture_output=True, text=True).stdout)"
    ended = containers.run(lab, program)
    assert ended.told == {"out": ""}
    assert native.markers[14] not in ended.stderr


@pytest.mark.parametrize(
    "planted",
    [
        ("/usr/lib/python3.11/sitecustomize.py", b"print('EVIL')"),
        ("/usr/lib/python3/dist-packages/evil.pth", b"import sys; print('EVIL')\n"),
        ("/usr/local/lib/python3.11/dist-packages/evil.pth", b"import sys; print('EVIL')\n"),
        ("/etc/python3.11/sitecustomize.py", b"print('EVIL')"),
        ("/evil/.local/lib/python3.11/site-packages/evil.pth", b"import sys; print('EVIL')\n"),
    ],
)
def test_code_planted_where_python_runs_it_at_its_start_does_not_run(planted, lab, containers, native):
    path, content = planted
    # The last one is the site directory of a user whose home the attacker chose.
    changes = {path: Change(content=content), "/etc/passwd": Change(content=b"root:x:0:0::/evil:/bin/sh\n")}
    ended = containers.run(lab, "tell(ran=True)", changes=changes)
    assert "EVIL" not in ended.stdout + ended.stderr
    assert ended.status != 0 or ended.told == {"ran": True}
    assert "EVIL" in _unprotected(containers, native.image, "/usr/bin/python3", "-c", "pass", changes=changes).stdout


def _unprotected(containers, image, program, *arguments, changes):
    """The control: what the same change does where no runtime stands in its way."""
    return containers.run(image, "", "--entrypoint", program, changes=changes, command=arguments)


@pytest.mark.parametrize(("path", "content"), [
    ("/usr/bin/pyvenv.cfg", b"home = /opt/evil\ninclude-system-site-packages = false\n"),
    ("/usr/pyvenv.cfg", b"home = /opt/evil\n"),
    ("/usr/bin/python3.11._pth", b"/opt/evil\n"),
    ("/usr/bin/pybuilddir.txt", b"/opt/evil"),
])  # fmt: skip
def test_a_planted_file_that_redirects_python_is_not_read(path, content, containers, lab):
    changes = {
        path: Change(content=content),
        "/opt/evil/lib/python3.11/os.py": Change(content=b"print('EVIL')"),
        "/opt/evil/os.py": Change(content=b"print('EVIL')"),
    }
    ended = containers.run(lab, "import sys; tell(home=[p for p in sys.path if 'evil' in p])", changes=changes)
    assert "EVIL" not in ended.stdout + ended.stderr
    assert ended.told == {"home": []}


def test_such_a_file_does_redirect_python_where_nothing_is_protected(containers, native):
    changes = {"/usr/bin/pyvenv.cfg": Change(content=b"home = /opt/evil\n")}
    ended = _unprotected(
        containers, native.image, "/usr/bin/python3", "-c", "import sys; print(sys.path, sys._home)", changes=changes
    )
    assert "/opt/evil" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "path", ["/usr/lib/python311.zip", "/usr/lib/python3.11/lib-dynload/_evil.so", "/usr/lib/python3.11/os.py"]
)
def test_a_planted_or_changed_module_is_not_imported(path, lab, containers):
    ended = containers.run(lab, "tell(ran=True)", changes={path: Change(content=b"print('EVIL')", mode=0o755)})
    assert "EVIL" not in ended.stdout + ended.stderr


def test_a_planted_preload_file_loads_nothing(lab, containers):
    """ld.so.preload names a real library that is not in the manifest: the loader must not map it."""
    library = containers.read(lab, "/lib/x86_64-linux-gnu/libpcprofile.so")
    changes = {"/opt/evil.so": Change(content=library, mode=0o755), "/etc/ld.so.preload": Change(content=b"/opt/evil.so\n")}
    ended = containers.run(lab, "tell(mapped='evil' in read('/proc/self/maps'))", changes=changes)
    assert ended.told == {"mapped": False}
    assert "evil" in _unprotected(containers, lab, "/bin/cat", "/proc/self/maps", changes=changes).stdout


def test_a_preload_or_another_variable_of_the_host_does_not_reach_the_program(lab, containers):
    names = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "GREETING")
    program = (
        "import os; tell(mode=os.environ['API_MODE'], seen=[name for name, value in os.environ.items() if 'evil' in value])"
    )
    ended = containers.run(lab, program, environment=dict.fromkeys(names, "/opt/evil.so"))
    assert ended.told == {"mode": "confidential", "seen": []}


def test_arguments_of_the_container_do_not_reach_the_program(lab, containers):
    ended = containers.run(lab, "import sys; tell(arguments=sys.argv)", command=["-c", "print('EVIL')"])
    assert ended.told == {"arguments": ["/app/lab.py"]}


def test_an_unprotected_bind_over_a_protected_path_is_refused(lab, containers, tmp_path, native):
    """A volume that hides a protected directory is a change like any other."""
    (tmp_path / "api.key").write_text("evil")
    ended = containers.run(lab, READ % (["/tls/api.key", "/app/secret.txt"],), "-v", f"{tmp_path}:/tls:ro")
    assert ended.told == {"/tls/api.key": EIO, "/app/secret.txt": native.markers[4]}
    assert re.search(r"/tls/api.key", ended.stderr)
