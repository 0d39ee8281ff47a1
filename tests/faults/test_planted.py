"""What others may have put in the place of our files: nothing is waited for, and nothing that a link leads to is touched."""

from __future__ import annotations

import os

import pytest
from cli.commands import arguments, run


@pytest.fixture
def built(native, place):
    assert run(place, arguments(native, place)).code == 0
    return place


def test_a_layouts_lock_is_no_link_and_no_fifo(native, built, tmp_path):
    """Who may write to a layout that several users deliver to could put anything there."""
    lock = built.layout / ".sconify.lock"
    victim = tmp_path / "victim"
    for plant in (lambda: lock.symlink_to(victim), lambda: os.mkfifo(lock)):
        lock.unlink(missing_ok=True)
        plant()
        (native / "plain" / "readme").write_bytes(os.urandom(8))
        ended = run(built, arguments(native, built))
        assert ended.code in (0, 1), ended.stderr
        assert "Traceback" not in ended.stderr
        assert not victim.exists()
    assert ended.code == 0, "a FIFO can be locked, too"


@pytest.mark.parametrize("name", ["identity.pem", "root.key"])
def test_a_key_is_a_regular_file(native, built, name):
    path = built.state / "cas" / name if name == "identity.pem" else built.state / name
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    ended = run(built, arguments(native, built), env={"SCONIFY_ROOT_KEY": ""} if name == "root.key" else {})
    assert ended.code in (1, 2), ended.stderr
    (line,) = ended.errors
    assert f"{name} is not a regular file" in line
