"""Options that contradict, that lack something, or that are not built yet are errors; the rest that is odd is a warning."""

import pytest

from sconify_tasks.command_line import parse_arguments
from sconify_tasks.errors import UsageError
from sconify_tasks.option_checks import NOT_BUILT, check
from sconify_tasks.option_table import BY_NAME

ENOUGH = ("--from=app:1", "--to=app:1-enc", "--binary=/usr/bin/python3", "--dir=/app")
SAMPLES = {
    "choice": "job",
    "number": "80",
    "url": "https://a.b",
    "volume": "v:/v",
    "mount": "v:/v",
    "setting": "a=b",
    "path": "/a",
}


def checked(*arguments):
    return check(parse_arguments((*ENOUGH, *arguments)).options)


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        checked(*arguments)
    return caught.value.message


def test_an_ordinary_image_has_no_warnings():
    assert checked() == []


def test_what_is_missing_is_named_at_once():
    with pytest.raises(UsageError, match="missing: --from, --to, --binary"):
        check(parse_arguments(()).options)


def test_an_image_is_not_overwritten_by_itself():
    assert "--from and --to" in refused("--to=app:1")


def test_directories_are_encrypted_or_embedded_and_not_both():
    message = refused("--binary-fs")
    assert "--dir" in message
    assert "--binary-fs" in message


def test_uploading_and_not_uploading_contradict():
    assert "--enable-session-upload" in refused("--disable-session-upload", "--enable-session-upload")


def test_a_pin_without_a_cas_pins_nothing():
    assert "--cas-key" in refused("--cas-key=" + "ab" * 32)
    assert checked("--cas-key=" + "ab" * 32, "--cas=cas") == []


@pytest.mark.parametrize("name", sorted(NOT_BUILT))
def test_what_is_not_built_is_never_silently_left_out(name):
    option = BY_NAME[name]
    value = "" if option.is_flag else f"={SAMPLES.get(option.kind.name, '/some/file')}"
    arguments = [argument for argument in ENOUGH if not (name == "binary-fs" and argument.startswith("--dir"))]
    with pytest.raises(UsageError, match=f"not built yet: --{name}"):
        check(parse_arguments((*arguments, f"--{name}{value}")).options)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--cli=x"], "--cli is ignored"),
        (["--crosscompiler=x"], "--crosscompiler is ignored"),
        (["--disable-attestation"], "--disable-attestation"),
        (["--disable-session-security-attestation"], "anyone can use this session"),
        (["--disable-session-upload", "--create-namespace"], "--create-namespace has no effect"),
        (["--allow-tcb-vulnerabilities"], "--allow-debug-mode"),
        (["--cas=scone-cas.cf"], "vendor's runtime"),
        (["--cas=scone-cas.cf:8081"], "vendor's runtime"),
    ],
)
def test_what_is_odd_is_said(arguments, part):
    assert [warning for warning in checked(*arguments) if part in warning]


def test_an_image_without_anything_encrypted_is_warned_about():
    options = parse_arguments(ENOUGH[:3]).options
    assert any("no --dir" in warning for warning in check(options))
