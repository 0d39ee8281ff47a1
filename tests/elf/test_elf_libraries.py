"""The shared-object closure, with the loader's own rules, of programs made for the purpose and of this machine's."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from elf.folder_view import FolderView

from sconify_tasks.elf import inspect
from sconify_tasks.errors import UsageError
from sconify_tasks.libraries import Dependent, closure

LOADER = "lib64/ld-linux-x86-64.so.2"
MULTIARCH = "usr/lib/x86_64-linux-gnu"


class Tree:
    """An image in the making; libraries are linked against those that were made before, by soname."""

    def __init__(self, root, compile_c):
        self.root, self.compile_c, self.built = root, compile_c, {}
        self.add(LOADER, "ld-linux-x86-64.so.2")

    def add(self, path, soname, *, needed=(), arguments=()):
        """A shared object at each place of `path`."""
        made = self.compile_c(
            "int nothing;",
            *("-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{soname}", "-Wl,--no-as-needed"),
            *(str(self.built[name]) for name in needed),
            *arguments,
        )
        self.built[soname] = made
        self.place(path, made)
        return made

    def program(self, path, *, needed=(), arguments=(), loader="/" + LOADER):
        made = self.compile_c(
            "void _start(void) {}",
            *("-pie", "-fPIE", "-nostdlib", f"-Wl,--dynamic-linker={loader}", "-Wl,--no-as-needed"),
            *(str(self.built[name]) for name in needed),
            *arguments,
        )
        self.place(path, made)

    def place(self, path, made):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, target)

    def text(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def closure(self, program, **arguments):
        return closure(FolderView(self.root), program, **arguments)

    def places(self, program, **arguments):
        return {library.name: library.resolved.decode() for library in self.closure(program, **arguments).libraries}


@pytest.fixture
def tree(tmp_path, compile_c):
    return Tree(tmp_path, compile_c)


def test_libraries_of_libraries_are_found_through_a_merged_usr(tree):
    (tree.root / "usr/lib").mkdir(parents=True)
    (tree.root / "lib").symlink_to("usr/lib")
    tree.add(f"{MULTIARCH}/libtwo.so.2.1", "libtwo.so.2")
    (tree.root / MULTIARCH / "libtwo.so.2").symlink_to("libtwo.so.2.1")
    tree.add(f"{MULTIARCH}/libone.so.1", "libone.so.1", needed=["libtwo.so.2"])
    tree.program("app/run", needed=["libone.so.1"])
    (tree.root / "usr/bin").mkdir()
    (tree.root / "usr/bin/run").symlink_to("/app/run")
    libraries = {library.name: library for library in tree.closure(b"/usr/bin/run").libraries}
    assert set(libraries) == {b"ld-linux-x86-64.so.2", b"libone.so.1", b"libtwo.so.2"}
    two = libraries[b"libtwo.so.2"]
    assert two.path == b"/lib/x86_64-linux-gnu/libtwo.so.2"
    assert two.resolved == b"/usr/lib/x86_64-linux-gnu/libtwo.so.2.1"
    assert [link.path for link in two.links] == [b"/lib", b"/usr/lib/x86_64-linux-gnu/libtwo.so.2"]
    assert two.needed_by == (b"/lib/x86_64-linux-gnu/libone.so.1",)
    assert libraries[b"libone.so.1"].needed_by == (b"/app/run",)
    assert libraries[b"ld-linux-x86-64.so.2"].is_loader
    assert not two.is_loader


def test_runpath_is_the_object_s_own_and_rpath_is_inherited(tree):
    tree.add("opt/deep/libdeep.so", "libdeep.so")
    tree.add("opt/lib/libmid.so", "libmid.so", needed=["libdeep.so"])
    new = ("-Wl,--enable-new-dtags", "-Wl,-rpath,/opt/lib:/opt/deep")
    tree.program("run", needed=["libmid.so"], arguments=new)
    with pytest.raises(
        UsageError, match=r"/opt/lib/libmid\.so needs the library libdeep\.so: it is not in the image"
    ) as refusal:
        tree.closure(b"/run")
    assert "LD_LIBRARY_PATH" in refusal.value.hint
    old = ("-Wl,--disable-new-dtags", "-Wl,-rpath,/opt/lib:/opt/deep")
    tree.program("run", needed=["libmid.so"], arguments=old)
    assert tree.places(b"/run")[b"libdeep.so"] == "/opt/deep/libdeep.so"


def test_origin_is_the_directory_that_the_object_lies_in(tree):
    tree.add("srv/app/lib/libx.so", "libx.so")
    tree.program("srv/app/bin/run", needed=["libx.so"], arguments=("-Wl,-rpath,$ORIGIN/../lib",))
    (tree.root / "usr").mkdir()
    (tree.root / "usr/run").symlink_to("../srv/app/bin/run")
    (found,) = [library for library in tree.closure(b"/usr/run").libraries if not library.is_loader]
    assert (found.path, found.resolved) == (b"/srv/app/bin/../lib/libx.so", b"/srv/app/lib/libx.so")


def test_dollar_lib_and_platform_are_replaced(tree):
    tree.add("opt/lib64/x86_64/libx.so", "libx.so")
    tree.program("run", needed=["libx.so"], arguments=("-Wl,-rpath,/opt/${LIB}/$PLATFORM",))
    assert tree.places(b"/run")[b"libx.so"] == "/opt/lib64/x86_64/libx.so"


def test_the_order_is_rpath_then_ld_library_path_then_runpath_then_system(tree):
    for folder in ("rpath", "env", "usr/lib"):
        tree.add(f"{folder}/libx.so", "libx.so")
    environment = {"ld_library_path": b"/nowhere::/env"}
    tree.program("old", needed=["libx.so"], arguments=("-Wl,--disable-new-dtags", "-Wl,-rpath,/rpath"))
    assert tree.places(b"/old", **environment)[b"libx.so"] == "/rpath/libx.so"
    tree.program("new", needed=["libx.so"], arguments=("-Wl,--enable-new-dtags", "-Wl,-rpath,/rpath"))
    assert tree.places(b"/new", **environment)[b"libx.so"] == "/env/libx.so"
    assert tree.places(b"/new")[b"libx.so"] == "/rpath/libx.so"
    tree.program("plain", needed=["libx.so"])
    assert tree.places(b"/plain", **environment)[b"libx.so"] == "/env/libx.so"
    assert tree.places(b"/plain")[b"libx.so"] == "/usr/lib/libx.so"


def test_ld_so_conf_and_what_it_includes_are_read(tree):
    tree.text("etc/ld.so.conf", "# comment\ninclude ld.so.conf.d/*.conf  # more\n/opt/last\n")
    tree.text("etc/ld.so.conf.d/a.conf", "/opt/first\ninclude /etc/ld.so.conf\n")
    tree.text("etc/ld.so.conf.d/ignored.txt", "/opt/ignored\n")
    tree.add("opt/ignored/libx.so", "libx.so")
    tree.add("opt/last/libx.so", "libx.so")
    tree.add("opt/first/liby.so", "liby.so")
    tree.program("run", needed=["libx.so", "liby.so"])
    places = tree.places(b"/run")
    assert places[b"libx.so"] == "/opt/last/libx.so"
    assert places[b"liby.so"] == "/opt/first/liby.so"


def test_a_library_for_another_machine_is_passed_over(tree):
    made = tree.add("usr/lib/libx.so", "libx.so")
    foreign = bytearray(made.read_bytes())
    foreign[18] = 183
    (tree.root / MULTIARCH).mkdir(parents=True)
    (tree.root / MULTIARCH / "libx.so").write_bytes(foreign)
    foreign[4] = 1
    (tree.root / "usr/lib64").mkdir()
    (tree.root / "usr/lib64/libx.so").write_bytes(foreign)
    tree.program("run", needed=["libx.so"])
    assert tree.places(b"/run")[b"libx.so"] == "/usr/lib/libx.so"


def test_a_library_that_is_none_is_an_error_that_names_it(tree):
    tree.add("usr/lib/libx.so", "libx.so")
    tree.text("usr/lib/libx.so", "INPUT(libx.so.1)")
    tree.program("run", needed=["libx.so"])
    with pytest.raises(UsageError, match=r"/run needs the library libx\.so: /usr/lib/libx\.so is not an ELF file"):
        tree.closure(b"/run")


def test_one_object_under_two_names_is_one_library(tree):
    tree.add("usr/lib/libx.so.1", "libx.so.1")
    (tree.root / "usr/lib/liby.so.1").symlink_to("libx.so.1")
    tree.add("unused/liby.so.1", "liby.so.1")
    tree.program("run", needed=["libx.so.1", "liby.so.1"])
    (found,) = [library for library in tree.closure(b"/run").libraries if not library.is_loader]
    assert found.resolved == b"/usr/lib/libx.so.1"


def test_libraries_that_need_each_other_end(tree):
    tree.add("usr/lib/liba.so", "liba.so")
    tree.add("usr/lib/libb.so", "libb.so", needed=["liba.so"])
    tree.add("usr/lib/liba.so", "liba.so", needed=["libb.so"])
    tree.program("run", needed=["liba.so"])
    assert set(tree.places(b"/run")) == {b"liba.so", b"libb.so", b"ld-linux-x86-64.so.2"}


def test_what_a_plug_in_lacks_is_reported_and_no_error(tree):
    tree.add("usr/lib/libthere.so", "libthere.so")
    tree.add("unused/libgone.so", "libgone.so")
    plugin = tree.add("app/plugin.so", "plugin.so", needed=["libthere.so", "libgone.so"])
    (tree.root / "unused/libgone.so").unlink()
    tree.program("run", needed=["ld-linux-x86-64.so.2"])
    facts = inspect(plugin)
    found = tree.closure(b"/run", dlopened=[Dependent(path=b"/app/plugin.so", needed=facts.needed)])
    assert {library.name for library in found.libraries} == {b"ld-linux-x86-64.so.2", b"libthere.so"}
    assert [(lost.name, lost.needed_by) for lost in found.missing] == [(b"libgone.so", b"/app/plugin.so")]


def test_each_plug_in_finds_its_own_library_of_a_common_name(tree):
    plugins = []
    for folder in ("a", "b"):
        tree.add(f"app/{folder}/libs/libcommon.so.1", "libcommon.so.1", arguments=(f"-Wl,--build-id=0x{ord(folder):x}",))
        arguments = ("-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/libs")
        made = tree.add(f"app/{folder}/plugin.so", f"plugin-{folder}.so", needed=["libcommon.so.1"], arguments=arguments)
        facts = inspect(made)
        plugins.append(Dependent(path=f"/app/{folder}/plugin.so".encode(), needed=facts.needed, runpath=facts.runpath))
    tree.program("run", needed=["ld-linux-x86-64.so.2"])
    found = {library.resolved for library in tree.closure(b"/run", dlopened=plugins).libraries}
    assert {b"/app/a/libs/libcommon.so.1", b"/app/b/libs/libcommon.so.1"} <= found


def test_a_static_program_needs_nothing_and_nothing_is_read(tree, go_program):
    tree.place("run", go_program)
    view = FolderView(tree.root)
    assert closure(view, b"/run").libraries == ()
    assert view.read_paths == [b"/run"]


def test_each_object_is_read_once(tree):
    tree.add("usr/lib/libx.so", "libx.so")
    tree.add("usr/lib/liby.so", "liby.so", needed=["libx.so"])
    tree.program("run", needed=["libx.so", "liby.so"])
    view = FolderView(tree.root)
    closure(view, b"/run")
    assert len(view.read_paths) == len(set(view.read_paths)) == 4


def test_a_loader_that_is_missing_is_named_with_who_needs_it(tree):
    tree.program("run", loader="/lib64/none.so.2")
    with pytest.raises(UsageError, match=r"/run needs the loader /lib64/none\.so\.2: .* does not exist"):
        tree.closure(b"/run")


@pytest.mark.parametrize("conf", ["/etc/ld.so.conf\n" * 10_000, "include /etc/ld.so.conf.d/*\n"])
def test_hostile_loader_configuration_ends(tree, conf):
    tree.text("etc/ld.so.conf", conf)
    for number in range(300):
        tree.text(f"etc/ld.so.conf.d/{number}", f"include /etc/ld.so.conf.d/{number + 1}\n")
    tree.program("run", needed=["ld-linux-x86-64.so.2"])
    with suppress(UsageError):
        tree.closure(b"/run")


@pytest.fixture
def musl(tree):
    loader = tree.add("lib/ld-musl-x86_64.so.1", "libc.musl-x86_64.so.1")
    tree.place("unused/libc.so", loader)
    return tree


def test_musl_looks_where_musl_looks(musl):
    musl.add("usr/local/lib/libx.so", "libx.so")
    musl.add(f"{MULTIARCH}/libglibc.so", "libglibc.so")
    options = {"loader": "/lib/ld-musl-x86_64.so.1"}
    musl.program("run", needed=["libx.so", "libc.musl-x86_64.so.1"], **options)
    found = musl.closure(b"/run").libraries
    assert {library.resolved for library in found} == {b"/lib/ld-musl-x86_64.so.1", b"/usr/local/lib/libx.so"}
    musl.program("run", needed=["libglibc.so"], **options)
    with pytest.raises(UsageError, match=r"libglibc\.so"):
        musl.closure(b"/run")
    musl.text("etc/ld-musl-x86_64.path", f"/nowhere\n/{MULTIARCH}:/x\n")
    assert musl.places(b"/run")[b"libglibc.so"] == f"/{MULTIARCH}/libglibc.so"


def test_musl_inherits_runpath_and_asks_the_environment_first(musl):
    musl.add("opt/deep/libdeep.so", "libdeep.so")
    musl.add("opt/lib/libmid.so", "libmid.so", needed=["libdeep.so"])
    musl.add("env/libmid.so", "libmid.so", needed=["libdeep.so"])
    arguments = ("-Wl,--enable-new-dtags", "-Wl,-rpath,/opt/lib:/opt/deep")
    musl.program("run", needed=["libmid.so"], arguments=arguments, loader="/lib/ld-musl-x86_64.so.1")
    assert musl.places(b"/run")[b"libdeep.so"] == "/opt/deep/libdeep.so"
    assert musl.places(b"/run", ld_library_path=b"/env")[b"libmid.so"] == "/env/libmid.so"


@pytest.mark.parametrize("program", ["/bin/ls", "/usr/bin/python3", "/usr/bin/openssl", "/usr/bin/git"])
def test_a_program_of_this_machine_has_the_closure_that_its_loader_says(program):
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    output = subprocess.run(["ldd", program], capture_output=True, check=True, text=True).stdout
    expected = {str(Path(path).resolve()) for path in re.findall(r"(/\S+) \(0x", output)}
    found = closure(FolderView(Path("/")), program.encode())
    assert {library.resolved.decode() for library in found.libraries} == expected
    assert not found.missing
