"""Which program a script starts, in what words; compared with the kernel, which starts the same scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from parts.need import missing

from sconify_tasks.errors import UsageError
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.scripts import Search, started

TELL = "#include <stdio.h>\nint main(int n, char **v) { for (int i = 0; i < n; i++) puts(v[i]); }"


class Image:
    """A folder with the static program /bin/tell (it tells its words), and /bin/env, which leads to this machine's."""

    def __init__(self, root: Path, tell: Path) -> None:
        self.root = root
        for place in ("bin/tell", "opt/bin/other"):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tell, root / place)
        self.script("bin/env", "placeholder")

    def script(self, path: str, text: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        target.chmod(0o755)

    def started(self, *words: str, path: str = "/bin:/opt/bin"):
        search = Search(native=RootfsSource(self.root), path_variable=path, workdir="/work")
        return started(search, words, "the command's first word")


@pytest.fixture
def image(tmp_path, compile_static):
    return Image(tmp_path / "root", compile_static)


@pytest.fixture(scope="session")
def compile_static(tmp_path_factory, need):
    out = tmp_path_factory.mktemp("tell") / "tell"
    subprocess.run([need("gcc"), "-static", "-x", "c", "-", "-o", str(out)], input=TELL.encode(), check=True)
    return out


@pytest.mark.parametrize(
    "line",
    [
        *("#!/bin/tell", "#! /bin/tell", "#!/bin/tell -e", "#!/bin/tell \t one argument with  spaces  ", "#!\t/bin/tell\t-x"),
        *("#!/bin/env tell", "#! /bin/env   tell"),
    ],
)
def test_the_words_are_those_that_the_kernel_makes(line, image, need):
    """In a chroot with `env` in it, the kernel starts the script: /bin/tell says with what words."""
    chroot = need("chroot")
    if os.geteuid() != 0:
        missing("root, for chroot")
    image.script("work/entry", line + "\nrest\n")
    env = subprocess.run([need("gcc"), "-static", "-x", "c", "-", "-o", str(image.root / "bin/env")], input=_ENV, check=False)
    assert env.returncode == 0
    found = image.started("/work/entry", "one", "two three")
    told = subprocess.run([chroot, image.root, "/work/entry", "one", "two three"], capture_output=True, text=True, check=True)
    assert list(found.words) == told.stdout.splitlines()
    assert found.program.path == b"/bin/tell"
    assert [script.path for script in found.scripts] == [b"/work/entry"]


_ENV = b'#include <unistd.h>\nint main(int n, char **v) { char *e[] = {"PATH=/bin", 0}; return execvpe(v[1], v + 1, e); }'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#!/bin/env -S tell -u -B", ["tell", "-u", "-B", "/work/entry"]),
        ("#!/bin/env -Stell -u", ["tell", "-u", "/work/entry"]),
        ("#!/bin/env --split-string=other x", ["other", "x", "/work/entry"]),
        ("#!/bin/tell", ["/bin/tell", "/work/entry"]),
    ],
)
def test_env_may_split_its_line(line, words, image):
    image.script("work/entry", line)
    assert list(image.started("/work/entry").words) == words


def test_a_bare_name_and_a_relative_one_are_spelled_as_the_kernel_would_have_them(image):
    image.script("opt/bin/entry.sh", "#!/bin/tell\n")
    image.script("work/here.sh", "#!/bin/tell\n")
    assert image.started("entry.sh", "x").words == ("/bin/tell", "/opt/bin/entry.sh", "x")
    assert image.started("./here.sh").words == ("/bin/tell", "./here.sh")


def test_a_script_s_script_is_followed_and_a_link_is_told(image):
    image.script("bin/inner", "#!/bin/tell -i\n")
    image.script("bin/outer", "#!/bin/inner -o\n")
    (image.root / "entry").symlink_to("bin/outer")
    found = image.started("/entry", "x")
    assert found.words == ("/bin/tell", "-i", "/bin/inner", "-o", "/entry", "x")
    assert [script.path for script in found.scripts] == [b"/bin/outer", b"/bin/inner"]
    assert [link.path for link in found.scripts[0].links] == [b"/entry"]


def test_a_program_is_no_script(image):
    found = image.started("tell", "x")
    assert (found.words, found.scripts, found.program.path) == (("tell", "x"), (), b"/bin/tell")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!tell\n", "no interpreter by an absolute path"),
        ("#!\n", "no interpreter by an absolute path"),
        (b"#!/bin/\xff\n", "no interpreter by an absolute path"),
        (b"#!/bin/t\0ell\n", "no interpreter by an absolute path"),
        ("#!/bin/" + "x" * 300 + "\n", "longer than 256 bytes"),
        ("#!/bin/none\n", "interpreter of the script /work/entry: there is no file /bin/none"),
        ("#!/bin/tell\r\n", "there is no file /bin/tell\r"),
        ("#!/bin/env\n", "only env itself can read"),
        ("#!/bin/env -i tell\n", "only env itself can read"),
        ("#!/bin/env A=b tell\n", "only env itself can read"),
        ("#!/bin/env tell -u\n", "only env itself can read"),
        ("#!/bin/env -S tell '$x'\n", "only env itself can read"),
        ("#!/bin/env nothing\n", "there is no file nothing on the PATH"),
        ("#!/work/entry\n", "script of a script, 4 deep"),
    ],
    ids=lambda value: json.dumps(repr(value)[:40]),
)
def test_a_script_that_cannot_be_followed_is_refused_with_the_reason(text, message, image):
    image.script("work/entry", text)
    with pytest.raises(UsageError) as caught:
        image.started("/work/entry")
    assert message in caught.value.message
