"""Input that can't be: one clear line, the documented exit code, and nothing half-made."""

from __future__ import annotations

import io
import os
import struct
import subprocess

import pytest
from build.small_image import CONFIG, write, write_config
from cli.commands import Ended, arguments, run, variables

from sconify_dodo import cli

E_MACHINE, AARCH64 = 18, 183


@pytest.fixture
def attempt(native, place, capsys):
    """Run the command in this process; an exception that leaves it is a failure of the test."""

    def attempt_(*more: str, **env: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        words = arguments(native, place, *more)[1:]
        code = cli.run(words, variables={**variables(place), **env}, folder=place.folder, stdout=out, stderr=err)
        captured = capsys.readouterr()
        return Ended(code=code, stdout=out.getvalue() + captured.out, stderr=err.getvalue() + captured.err)

    return attempt_


@pytest.fixture
def refused(attempt, place):
    """The attempt fails with this code and one line of error that holds the words; nothing was delivered."""

    def refused_(code: int, *words: str, more: tuple[str, ...] = (), **env: str) -> Ended:
        ended = attempt(*more, **env)
        assert ended.code == code, ended.stderr
        assert ended.stdout == ""
        assert len(ended.errors) == 1, ended.stderr
        for word in words:
            assert word in ended.errors[0]
        assert "Traceback" not in ended.stderr
        assert not (place.layout / "index.json").exists()
        assert not place.session.exists()
        return ended

    return refused_


def test_a_missing_native_image(refused):
    refused(3, "/nowhere", more=("--from=dir:/nowhere",))


def test_a_native_image_that_is_a_file(refused, native):
    refused(3, "app/secret", more=(f"--from=dir:{native}/app/secret",))


@pytest.mark.parametrize(
    ("base", "word"),
    [
        ("dir:/nowhere", "/nowhere"),
        ("oci:/nowhere:tag", "/nowhere"),
        ("alpine:3.10", "alpine:3.10"),
        ("docker:alpine:3.10", "Docker Engine"),
    ],
)
def test_a_missing_base(refused, base, word):
    refused(3, word, more=(f"--base={base}",))


def test_a_missing_engine(refused):
    refused(3, "Docker Engine", more=("--to=docker:small:1",))


@pytest.mark.parametrize("transport", ["registry"])
def test_a_transport_that_is_not_built_yet(refused, transport):
    refused(2, transport, "not built", more=(f"--from={transport}:x",))


@pytest.mark.parametrize("binary", ["/bin/nothing", "nothing", "/bin", "/bin/prog/below", "/../../../bin/nothing"])
def test_a_missing_binary(refused, binary):
    refused(2, more=(f"--binary={binary}", "--command=/bin/prog"))


def test_a_command_that_starts_another_program(refused, native):
    write(native / "bin" / "other", (native / "bin" / "prog").read_bytes())
    refused(2, "/bin/other", "--binary", more=("--command=/bin/other",))


def elf(native) -> bytearray:
    return bytearray((native / "bin" / "prog").read_bytes())


def thirty_two_bit(native) -> bytes:
    content = elf(native)
    content[4] = 1
    return bytes(content)


def foreign(native) -> bytes:
    content = elf(native)
    struct.pack_into("<H", content, E_MACHINE, AARCH64)
    return bytes(content)


def headers_beyond_the_end(native) -> bytes:
    content = elf(native)
    struct.pack_into("<Q", content, 32, 1 << 40)
    return bytes(content)


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("empty", lambda _native: b""),
        ("text", lambda _native: b"hello\n"),
        ("script", lambda _native: b"#!/bin/prog -x\nexit\n"),
        ("32-bit", thirty_two_bit),
        ("foreign", foreign),
        ("truncated in its header", lambda native: bytes(elf(native)[:40])),
        ("truncated in its program headers", lambda native: bytes(elf(native)[:100])),
        ("truncated in its segments", lambda native: bytes(elf(native)[:5000])),
        ("headers beyond the end", headers_beyond_the_end),
        ("only a magic", lambda _native: b"\x7fELF"),
        ("zeros after the magic", lambda _native: b"\x7fELF" + bytes(4096)),
        ("0xff after the magic", lambda _native: b"\x7fELF\x02\x01\x01" + b"\xff" * 4096),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_binary_that_can_not_be_sconified(refused, native, what, content):
    write(native / "bin" / "prog", content(native))
    refused(2, "/bin/prog")


@pytest.mark.parametrize(
    "folder",
    [
        *("/nothing", "/app/nothing", "/app/secret", "/proc", "/dev/shm", "/etc/hosts", "/app/../nothing"),
        *("relative", "/loop", "/dangling", "/escape", "/app/secret/below"),
    ],
)
def test_a_folder_to_protect_that_is_none(refused, native, folder):
    (native / "loop").symlink_to("loop")
    (native / "dangling").symlink_to("/not/there")
    (native / "escape").symlink_to("../../../../../../../../../../usr/include")
    refused(2, more=(f"--dir={folder}",))


def test_a_link_out_of_the_image_leads_to_the_images_own_file(native, place, attempt):
    """Symlinks are the image's: `..` above its root is its root."""
    (native / "out").symlink_to("../../../../../../../../../../app")
    assert attempt("--dir=/out").code == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--plain-file=/nothing",), "/nothing"),
        (("--plain-file=/app",), "/app"),
        (("--plain=/app/secret",), "/app/secret"),
        (("--plain=/app",), "/app"),
        (("--host-path=/app",), "/app"),
        (("--heap=lots",), "heap"),
        (("--dlopen=3",), "dlopen"),
        (("--threads=0",), "threads"),
        (("--env==value",), "env"),
        (("--nonsense",), "--nonsense"),
        (("--heap",), "--heap"),
        (("--to=dir:/x",), "dir:/x"),
        (("--to=scratch",), "scratch"),
        (("--to=small/UPPER",), "UPPER"),
        (("--root-key=/nowhere/key",), "key"),
        (("--cas=localhost:1", "--disable-session-upload"), "--cas-key"),
        (("--command='unbalanced",), "command"),
        (("--command=nothing",), "nothing"),
        (("--identity=/nowhere/identity",), "identity"),
        (("--template=/nowhere/template",), "template"),
        (("--cas=localhost:1", "--cas-root=/nowhere/root"), "root"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_can_not_be(refused, options, word):
    env = {"SCONIFY_ROOT_KEY": ""} if options[0].startswith("--root-key") else {}
    refused(2, word, more=options, **env)


@pytest.mark.parametrize("key", ["00", "zz" * 32, "5a" * 33])
def test_a_root_key_that_is_none_is_refused_and_not_repeated(refused, key):
    ended = refused(2, "root key", SCONIFY_ROOT_KEY=key)
    assert key not in ended.stderr


def test_a_root_key_that_others_may_read(refused, place):
    place.state.mkdir(parents=True)
    (place.state / "root.key").write_text("5a" * 32)
    (place.state / "root.key").chmod(0o644)
    refused(2, "root.key", SCONIFY_ROOT_KEY="")


def test_a_date_that_is_none(refused):
    refused(2, "SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH="today")


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/home"])
def test_a_home_that_can_not_be_written(refused, home):
    refused(1, home, HOME=home)


def test_a_configuration_that_is_no_json(refused, native):
    native.with_name("native.json").write_text("{")
    refused(2, "config")


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": "text"},
        {"Cmd": [1]},
        {"Env": ["A=\udcff"]},
        {"User": {"a": 1}},
        {"WorkingDir": "relative/../.."},
        {"WorkingDir": "/\0"},
        {"User": "nobody-knows-me"},
        {"Cmd": None},
        {"Cmd": ["/bin/sh", "-c", "a && b"]},
    ],
    ids=str,
)
def test_a_configuration_that_can_not_be(refused, native, config):
    write_config(native, {**CONFIG, "config": {**CONFIG["config"], **config}})
    refused(2)


def test_names_with_control_characters_do_not_reach_the_terminal(refused, native):
    folder = native / "app" / "\x1b]0;title\x07\n"
    folder.mkdir()
    write(folder / "file", b"x")
    ended = refused(2, more=("--plain-file=/app/\x1b]0;title\x07\n",))
    assert "\x1b" not in ended.stderr


@pytest.mark.parametrize("name", [b"\xff", b"\xe2\x28"])
def test_protected_files_may_have_names_that_are_not_utf8(attempt, native, name):
    with open(os.fsencode(native) + b"/app/" + name, "wb") as file:  # noqa: PTH123
        file.write(b"x")
    assert attempt().code == 0


def test_a_link_to_a_folder_whose_name_is_not_utf8(native, refused):
    folder = os.fsencode(native) + b"/f\xff"
    os.mkdir(folder)  # noqa: PTH102
    (native / "named").symlink_to(os.fsdecode(b"f\xff"))
    refused(2, "/named", more=("--dir=/named",))


def test_a_place_for_the_session_that_can_not_be_written(attempt, place):
    ended = attempt("--session=/proc/session.yml")
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "/proc" in ended.errors[0]


def test_a_place_for_the_image_that_can_not_be_written(attempt):
    ended = attempt("--to=oci:/proc/layout:small")
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "/proc" in ended.errors[0]


def test_a_base_that_holds_files_in_the_protected_folder(refused, tmp_path, native):
    write(tmp_path / "base" / "app" / "planted", b"x")
    refused(2, "/app/planted", more=(f"--base=dir:{tmp_path}/base",))


def test_a_pipe_that_nobody_reads_is_no_crash(place):
    from cli.commands import BIN

    command = f"exec {BIN}/sconify_image --help"
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        ["sh", "-c", command], stdout=writer, stderr=subprocess.PIPE, env=variables(place), text=True, check=False
    )
    os.close(writer)
    assert "Traceback" not in found.stderr
    assert found.stderr == ""


def test_a_failed_run_is_followed_by_a_good_one(refused, attempt, native):
    content = bytes(elf(native))
    write(native / "bin" / "prog", b"hello")
    (native / "bin" / "prog").chmod(0o755)
    refused(2, "/bin/prog")
    write(native / "bin" / "prog", content)
    assert attempt().code == 0


def test_unknown_command_line_is_the_same_in_a_real_process(native, place):
    ended = run(place, arguments(native, place, "--dir=/nothing"))
    assert (ended.code, ended.stdout) == (2, "")
    assert len(ended.errors) == 1
    assert "/nothing" in ended.errors[0]
