"""The command line: what scripts in the wild write is read; what is wrong is said in one line."""

import subprocess
import sys

import pytest

from sconify_tasks.command_line import format_help, parse_arguments
from sconify_tasks.errors import UsageError

ENOUGH = ("--from=app:1", "--to=app:1-enc", "--binary=/usr/bin/python3")


def value(name, *arguments):
    return parse_arguments((*ENOUGH, *arguments)).options[name]


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        parse_arguments((*ENOUGH, *arguments))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return caught.value


def test_both_forms_of_giving_a_value_are_read():
    assert value("service-name", "--service-name=a") == value("service-name", "--service-name", "a") == "a"


def test_repeatable_options_add_up_and_of_others_the_last_wins():
    assert value("dir", "--dir=/a", "--dir", "/b") == ("/a", "/b")
    assert value("heap", "--heap=1G", "--heap=2G") == 2 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64M", 64 << 20),
        ("256m", 256 << 20),
        ("12G", 12 << 30),
        ("4k", 4096),
        ("1", 4096),
        ("4610612736", 4610613248),
    ],
)
def test_sizes_are_binary_and_whole_pages(text, size):
    assert value("heap", f"--heap={text}") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "1T", "G", "1GB", "1025G", " 1G", "\u0661G", "0x10", "9" * 400])
def test_what_is_no_size_is_refused(text):
    assert "--heap=" in refused(f"--heap={text}").message


@pytest.mark.parametrize(("text", "path"), [("/app/", "/app"), ("/", "/"), ("//a//b/./", "/a/b"), ("/a b", "/a b")])
def test_paths_in_the_image_are_normalised(text, path):
    assert value("dir", f"--dir={text}") == (path,)


@pytest.mark.parametrize("text", ["app", "", "/a/../b", "/..", "/a\0b", "/a\nb"])
def test_paths_that_could_mean_anything_are_refused(text):
    refused(f"--dir={text}")


def test_the_binary_may_be_a_bare_name():
    assert value("binary", "--binary=java") == "java"
    refused("--binary=bin/java")


def test_options_are_never_abbreviated():
    error = refused("--names=x")
    assert error.message == "unknown option --names"
    assert error.hint == "did you mean --name?"
    refused("--disable-copy")


def test_stray_words_are_warned_about_and_ignored():
    parsed = parse_arguments((*ENOUGH, "--command=node", "/app/app.js", "--heap=2G", "more"))
    assert parsed.options["command"] == "node"
    assert parsed.options["heap"] == 2 << 30
    assert len(parsed.warnings) == 1
    assert "2 words" in parsed.warnings[0]
    assert "/app/app.js" not in parsed.warnings[0]  # it may be the rest of a secret command


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("--create_namespace", "create-namespace"),
        ("--cas_debug", "cas-debug"),
        ("--no-seesion-upload", "disable-session-upload"),
    ],
)
def test_former_names_are_taken_with_a_warning(former, name):
    parsed = parse_arguments((*ENOUGH, former))
    assert parsed.options[name] is True
    assert parsed.warnings == (f"{former} is called --{name} today",)


@pytest.mark.parametrize("words", [("--trace",), ("--trace", "--heap=1G"), ("--trace", "-v")])
def test_trace_alone_is_the_flag_that_it_was_in_2020(words):
    parsed = parse_arguments((*ENOUGH, *words))
    assert (parsed.options["debug"], parsed.options["trace"]) == (True, None)
    assert parsed.warnings == ("--trace without a file is called --debug today",)


@pytest.mark.parametrize("words", [("--trace=run.json",), ("--trace", "run.json")])
def test_trace_with_a_file_is_that_file(words):
    parsed = parse_arguments((*ENOUGH, *words))
    assert (parsed.options["debug"], parsed.options["trace"]) == (False, "run.json")
    assert parsed.warnings == ()


def test_aliases_are_silent():
    parsed = parse_arguments((*ENOUGH, "--file=/x", "--fs-file=/y", "--k8s-helm-output=out"))
    assert parsed.options["fs-file"] == ("/x", "/y")
    assert parsed.options["k8s-helm-output-dir"] == "out"
    assert parsed.warnings == ()


def test_a_former_name_as_a_value_of_another_option_is_left_alone():
    assert value("command", "--command=--trace") == "--trace"


def test_a_variable_keeps_newlines_equal_signs_and_its_emptiness():
    assert value("env", "--env=A=1=2", "--env=B=x\ny", "--env=C=", "--env=D") == ("A=1=2", "B=x\ny", "C=", "D")


def test_secret_values_are_not_repeated_in_errors():
    assert "hunter2" not in str(refused("--env==hunter2"))
    assert "hunter2" not in str(refused("--k8s-helm-set=hunter2"))


def test_bytes_that_are_not_text_are_refused():
    refused("--name=\udc80")
    refused("--command=\udc80")


@pytest.mark.parametrize("text", ["https://cas", "cas:0", "cas:65536", "cas:x", "a b", "", "-cas", "cas:"])
def test_what_is_no_address_is_refused(text):
    refused(f"--cas={text}")


@pytest.mark.parametrize("text", ["cas", "cas:8081", "10.0.0.1:1", "[::1]:8081", "5-10-0.scone-cas.cf"])
def test_addresses_are_hosts_with_or_without_a_port(text):
    assert value("cas", f"--cas={text}") == text


def test_a_flag_takes_no_value_and_a_value_is_asked_for_where_it_is_missing():
    refused("--binary-fs=true")
    assert "--heap" in refused("--heap").message


def test_nothing_given_is_complete_with_defaults():
    options = parse_arguments(()).options
    assert (options["heap"], options["stack"], options["dlopen"], options["fork"]) == (1 << 30, 1 << 20, 1, 0)
    assert (options["base"], options["las"], options["cas"]) == ("alpine:3.10", "localhost:18766", None)
    assert (options["service-name"], options["threads"], options["dir"]) == ("service", 8, ())


def test_what_was_given_is_known():
    assert parse_arguments((*ENOUGH, "--heap=1G")).given == {"from", "to", "binary", "heap"}


def test_help_names_every_group_and_asks_for_nothing_else():
    assert parse_arguments(("-h",)).help
    assert "KUBERNETES" in format_help()


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from sconify_tasks.command_line import format_help, parse_arguments; import sconify_tasks.option_checks;"
        "import sconify_tasks.project; format_help(); parse_arguments(['--from=a', '--dir=/x']);"
        "print(','.join({'docker', 'twisted', 'cryptography', 'doit', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout == "\n"
