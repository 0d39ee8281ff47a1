"""Every row of docs/overlaps.md."""

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.protection import region_table

ENCRYPTED, AUTHENTICATED, NONE = Protection.ENCRYPTED, Protection.AUTHENTICATED, Protection.NONE


def table(*, encrypted=(), plain=(), host=(), authenticated=()):
    return region_table(encrypted=encrypted, plain=plain, host=host, authenticated=authenticated)


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"encrypted": [b"/app", b"/app/sub"]}, {b"/app/a": ENCRYPTED, b"/app/sub/x": ENCRYPTED, b"/other": NONE}),
        ({"encrypted": [b"/app"], "plain": [b"/app/sub"]}, {b"/app/a": ENCRYPTED, b"/app/sub/x": NONE}),
        ({"encrypted": [b"/app"], "plain": [b"/app/f"]}, {b"/app/f": NONE, b"/app/f2": ENCRYPTED}),
        ({"encrypted": [b"/app"], "host": [b"/app/sub"]}, {b"/app/a": ENCRYPTED, b"/app/sub/x": NONE}),
        ({"plain": [b"/app"], "encrypted": [b"/app/sub"]}, {b"/app/a": NONE, b"/app/sub/x": ENCRYPTED}),
        ({"plain": [b"/app", b"/app/f"]}, {b"/app/f": NONE, b"/app/g": NONE}),
        ({"host": [b"/app"], "encrypted": [b"/app/sub"]}, {b"/app/a": NONE, b"/app/sub": ENCRYPTED}),
        (
            {"authenticated": [b"/lib/py"], "encrypted": [b"/lib/py/x"]},
            {b"/lib/py/a": AUTHENTICATED, b"/lib/py/x/a": ENCRYPTED},
        ),
        ({"plain": [b"/lib"], "authenticated": [b"/lib/py"]}, {b"/lib/a": NONE, b"/lib/py/a": AUTHENTICATED}),
        ({"plain": [b"/lib/py"], "authenticated": [b"/lib/py"]}, {b"/lib/py/a": NONE}),
        ({"encrypted": [b"/lib/py"], "authenticated": [b"/lib/py"]}, {b"/lib/py/a": ENCRYPTED}),
        ({"encrypted": [b"/app", b"/app"]}, {b"/app/a": ENCRYPTED}),
        ({"plain": [b"/etc/x"], "host": [b"/etc/x"]}, {b"/etc/x": NONE}),
        (
            {"encrypted": [b"/"]},
            {b"/bin/sh": ENCRYPTED, b"/proc/1": NONE, b"/sys/x": NONE, b"/dev/null": NONE, b"/etc/hosts": NONE},
        ),
        ({"encrypted": [b"/etc"]}, {b"/etc/passwd": ENCRYPTED, b"/etc/resolv.conf": NONE, b"/etc/hostname": NONE}),
        ({"encrypted": [b"/app"]}, {b"/application": NONE, b"/app": ENCRYPTED}),
    ],
)
def test_the_longest_prefix_decides(options, classes):
    regions = table(**options)

    assert classes == {path: regions.protection(path) for path in classes}


@pytest.mark.parametrize("other", ["plain", "host"])
def test_one_path_in_two_classes_is_a_usage_error(other):
    with pytest.raises(UsageError, match="named by --dir and by"):
        table(encrypted=[b"/app"], **{other: [b"/app"]})


@pytest.mark.parametrize("path", [b"/proc", b"/sys/kernel", b"/dev/shm", b"/etc/hosts"])
def test_what_belongs_to_the_kernel_or_the_engine_cant_be_protected(path):
    with pytest.raises(UsageError, match="can't be protected"):
        table(encrypted=[path])


def test_service_libraries_inside_a_protected_directory_are_encrypted():
    regions = table(encrypted=[b"/usr"], authenticated=[b"/usr/lib/python3.11"])

    assert regions.protection(b"/usr/lib/python3.11/os.py") is ENCRYPTED
