"""Every option around the binary changes what is made, or what is said, as --help and docs/options.md say."""

from __future__ import annotations

import shutil
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from build.conftest import place  # noqa: F401 - a fixture
from build.small_image import compile_program, convert, write, write_config
from build.test_build_manifest import manifest_of

from sconify_tasks.events import Detail
from sconify_tasks.fspf.entries import Flag
from sconify_tasks.image.oci import OciSource
from sconify_tasks.inspection.report import inspect
from sconify_tasks.inspection.subject import Subject

LOADER, LIBC = "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"
OWN, HIDDEN = "opt/lib/libanswer.so", "opt/hidden/libanswer.so"
PYTHON, OS = "usr/bin/python3.9", "usr/lib/python3.9/os.py"
CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/opt/bin"], "WorkingDir": "/"}}


@pytest.fixture(scope="session")
def linked(need, tmp_path_factory):
    """A program that needs libanswer.so beside it, and one at a fixed address; both under the name of the folder."""
    folder = tmp_path_factory.mktemp("linked")
    library = compile_program(need("gcc"), folder / "libanswer.so", *_SHARED, source="int answer(void) { return 42; }")
    main = "int answer(void); int main(void) { return answer() - 42; }"
    compile_program(need("gcc"), folder / "pie", "-x", "none", str(library), "-Wl,-rpath,$ORIGIN/../lib", source=main)
    compile_program(need("gcc"), folder / "fixed", "-no-pie")
    return folder


_SHARED = ("-shared", "-fPIC", "-Wl,-soname,libanswer.so")


@pytest.fixture
def root(linked, tmp_path):
    """A root file system: a program with a library of its own, and something that passes for Python, with its library."""
    root = tmp_path / "native"
    for path in (LOADER, LIBC):
        _put(root, path, Path("/" + path).resolve())
    _put(root, "opt/bin/program", linked / "pie")
    _put(root, "opt/bin/fixed", linked / "fixed")
    _put(root, OWN, linked / "libanswer.so")
    _put(root, PYTHON, linked / "fixed")
    write(root / OS, b"# the standard library\n")
    write(root / "app/secret", b"secret\n")
    write_config(root, CONFIG)
    return root


def _put(root, path, source):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, root / path)


def made(root, place, **given):  # noqa: F811
    """Convert: the program at /opt/bin/program unless `binary` says otherwise, started by its own name."""
    binary = given.setdefault("binary", "/opt/bin/program")
    return convert(root, place, **{"plain": (), "command": binary, "disable_pie_check": True, **given})


def files(place):  # noqa: F811
    """Path to target of every link, and to nothing of everything else, in the image's layers."""
    found = {}
    for layer in place.layers():
        with tarfile.open(layer) as archive:
            found |= {member.name.lstrip("/"): member.linkname for member in archive}
    return found


def embedded(place, binary):  # noqa: F811
    """Paths of the files in the binary."""
    file = place.folder / "sconified"
    with closing(OciSource(place.layout, "small")) as image:
        file.write_bytes(image.read(binary.encode(), limit=1 << 26))
    return inspect(Subject(name="sconified", file=file)).document["embedded"]["files"].keys()


def service(place):  # noqa: F811
    (found,) = yaml.safe_load(place.session.read_text())["services"]
    return found


def details(outcome):
    return [event.message for event in outcome.events if isinstance(event, Detail)]


def test_shared_objects_come_along_and_are_verified_unless_that_is_disabled(root, place):  # noqa: F811
    assert made(root, place).code == 0
    assert {LOADER, LIBC, OWN} <= files(place).keys()
    closure = {entry.path.decode().lstrip("/") for entry in manifest_of(place).entries if entry.flags & Flag.CLOSURE}
    assert closure == {LOADER, LIBC, OWN}
    assert made(root, place, disable_copy_shared_object_dependencies=True).code == 0
    assert {LOADER, LIBC, OWN}.isdisjoint(files(place))
    assert not [entry for entry in manifest_of(place).entries if entry.flags & Flag.CLOSURE]


def test_without_them_a_named_library_is_copied_unprotected(root, place):  # noqa: F811
    given = {"disable_copy_shared_object_dependencies": True, "plain_file": ("/" + OWN,)}
    outcome = made(root, place, **given)
    assert outcome.code == 0
    assert OWN in files(place)
    assert f"/{OWN}" not in {entry.path.decode() for entry in manifest_of(place).entries}
    assert f"not protected: /{OWN}, by --plain" in details(outcome)


def test_each_library_is_told_with_the_rule_that_found_it_and_who_needs_it(root, place):  # noqa: F811
    told = details(made(root, place))
    assert "library /opt/bin/../lib/libanswer.so, by the RUNPATH of /opt/bin/program, needed by /opt/bin/program" in told
    assert f"library /{LOADER}, by the interpreter that it names, needed by /opt/bin/program and 1 more" in [
        line.replace(", /lib/x86_64-linux-gnu/libc.so.6", " and 1 more") for line in told
    ]


@pytest.mark.parametrize(
    "how", [{"plain": ("/plain",)}, {"dir": (), "binary_fs": True, "fs_dir": ("/app",), "plain": ("/plain",)}]
)
def test_what_was_told_of_libraries_and_of_what_is_not_protected_is_told_of_cached_steps_too(how, root, place):  # noqa: F811
    write(root / "plain/readme", b"anybody may read this\n")
    first = details(made(root, place, host_path=("/usr/share",), **how))
    assert {"not protected: /plain, by --plain", "not protected: /usr/share, by --host-path"} <= set(first)
    assert any(line.startswith("library /opt/bin/../lib/libanswer.so, by the RUNPATH of ") for line in first)
    again = made(root, place, host_path=("/usr/share",), verbose=True, **how)
    assert (again.code, again.ran) == (0, set())
    assert [line for line in details(again) if "\n" not in line] == first  # besides the session and the Dockerfile
    again = made(root, place, host_path=("/usr/share",), stack=2 << 20, verbose=True, **how)
    assert "sign" in again.ran
    assert [line for line in details(again) if "\n" not in line] == first
    assert details(made(root, place, host_path=("/usr/share",), **how)) == []


def test_a_missing_library_names_who_needs_it_and_where_it_could_be_named(root, place):  # noqa: F811
    (root / OWN).rename(root / "app/libanswer.so")
    outcome = made(root, place)
    assert outcome.code == 2
    assert "/opt/bin/program needs the library libanswer.so: it is not in the image" in outcome.failures["libraries"]
    assert not place.layout.exists()
    assert made(root, place, env=("LD_LIBRARY_PATH=/app",)).code == 0


def test_a_library_path_is_generated_unless_that_is_disabled_or_one_is_set(root, place):  # noqa: F811
    assert made(root, place).code == 0
    assert service(place)["environment"]["LD_LIBRARY_PATH"] == "/lib:/usr/lib:/usr/local/lib:"
    assert made(root, place, disable_ld_library_path_in_session=True).code == 0
    assert "LD_LIBRARY_PATH" not in service(place)["environment"]
    assert made(root, place, env=("LD_LIBRARY_PATH=/opt/lib",)).code == 0
    assert service(place)["environment"]["LD_LIBRARY_PATH"] == "/opt/lib"


def test_a_service_s_libraries_come_along_unless_that_is_disabled(root, place):  # noqa: F811
    python = {"binary": "/" + PYTHON}
    assert made(root, place, **python).code == 0
    assert OS in files(place)
    assert f"/{OS}" in {entry.path.decode() for entry in manifest_of(place).entries}
    assert made(root, place, disable_copy_service_libraries=True, **python).code == 0
    assert OS not in files(place)
    assert service(place)["environment"]["PYTHONNOUSERSITE"] == "1"


def test_with_binary_fs_a_service_s_libraries_are_embedded_unless_that_is_disabled(root, place):  # noqa: F811
    python = {"binary": "/" + PYTHON, "binary_fs": True, "dir": (), "fs_dir": ("/app",)}
    assert made(root, place, **python).code == 0
    assert {"/app/secret", f"/{OS}"} <= embedded(place, "/" + PYTHON)
    assert OS not in files(place)
    assert made(root, place, disable_copy_service_libraries=True, **python).code == 0
    assert embedded(place, "/" + PYTHON) >= {"/app/secret"}
    assert f"/{OS}" not in embedded(place, "/" + PYTHON)
    assert OS not in files(place)
    assert service(place)["environment"]["PYTHONNOUSERSITE"] == "1"


def test_a_service_s_usual_link_is_added_unless_that_is_disabled(root, place):  # noqa: F811
    python = {"binary": "/" + PYTHON}
    assert made(root, place, **python).code == 0
    assert files(place)["usr/bin/python3"] == "/" + PYTHON
    assert made(root, place, disable_binary_symlink_detection=True, **python).code == 0
    assert "usr/bin/python3" not in files(place)


def test_a_link_by_which_the_binary_is_named_comes_along_even_so(root, place):  # noqa: F811
    (root / "usr/bin/python3").symlink_to("python3.9")
    given = {"binary": "python3", "disable_binary_symlink_detection": True}
    assert made(root, place, **given).code == 0
    assert files(place)["usr/bin/python3"] == "python3.9"


def test_node_stays_what_it_was_whether_replacing_is_disabled_or_not(root, place, linked):  # noqa: F811
    _put(root, "usr/bin/node", linked / "pie")
    _put(root, "usr/lib/libanswer.so", linked / "libanswer.so")
    digests = []
    for disabled in (False, True):
        outcome = made(root, place, binary="/usr/bin/node", disable_replace_unsconifiable_binaries=disabled)
        assert (outcome.code, outcome.warnings) == (0, [])
        digests.append(place.image_digest())
    assert digests[0] == digests[1]


def test_what_is_no_pie_is_converted_with_a_warning_that_can_be_silenced(root, place):  # noqa: F811
    outcome = made(root, place, binary="/opt/bin/fixed", disable_pie_check=False)
    assert outcome.code == 0
    (warning,) = outcome.warnings
    assert warning.startswith("/opt/bin/fixed is not compiled as a position-independent executable (PIE)")
    assert made(root, place, binary="/opt/bin/fixed").warnings == []
    assert made(root, place, disable_pie_check=False).warnings == []  # a PIE


@pytest.mark.parametrize(
    ("binary", "configuration", "others"),
    [
        ("nginx", ["etc/nginx/conf.d/a.conf", "etc/nginx/nginx.conf"], ["etc/nginx/mime.types", "usr/share/nginx/x"]),
        ("php-fpm8.2", ["etc/php/8.2/fpm/pool.d/www.conf"], ["usr/share/php/x.php", "etc/passwd"]),
        ("redis-server", [], ["etc/redis/redis.conf", "usr/lib/redis/x.so"]),
    ],
)
def test_configuration_that_is_copied_readable_is_warned_of_once(binary, configuration, others, root, place):  # noqa: F811
    (root / "opt/bin/fixed").rename(root / "opt/bin" / binary)
    for path in others:
        write(root / path, b"x\n")
    for path in configuration:
        write(root / path, b"password\n")
    named = {"binary": f"/opt/bin/{binary}"}
    warnings = made(root, place, **named).warnings
    if not configuration:
        assert warnings == []
        return
    (warning,) = warnings
    folder = "/" + configuration[0].rpartition("/")[0]
    assert f"configuration is copied readable: /{configuration[0]}" in warning
    assert f"--dir={folder}" in warning
    assert ("and 1 more" in warning) == (len(configuration) == 2)
    folders = tuple(sorted({"/" + path.rpartition("/")[0] for path in configuration}))
    assert made(root, place, dir=folders, **named).warnings == []
    assert made(root, place, disable_configuration_check=True, **named).warnings == []
    assert made(root, place, disable_copy_service_libraries=True, **named).warnings == []


def test_a_bare_name_is_found_on_the_image_s_path_and_nowhere_else(root, place):  # noqa: F811
    assert made(root, place, binary="program").code == 0
    outcome = made(root, place, binary="true")
    assert outcome.code == 2
    assert "there is no file true on the PATH of" in outcome.failures["binary"]


@pytest.mark.parametrize(("links", "message"), [
    ({"a": "/b", "b": "/a"}, "there is no file /a in"),
    ({"a": "../../../../etc/shadow-of-this-machine"}, "there is no file /a in"),
])  # fmt: skip
def test_links_that_lead_nowhere_are_refused(links, message, root, place):  # noqa: F811
    for path, target in links.items():
        (root / path).symlink_to(target)
    outcome = made(root, place, binary="/a")
    assert outcome.code == 2
    assert message in outcome.failures["binary"]
    assert not place.layout.exists()
