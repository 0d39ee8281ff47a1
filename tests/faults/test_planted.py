"""What others may have put in the place of our files: nothing is waited for, and nothing that a link leads to is touched."""

from __future__ import annotations

import os

import pytest
from cli.commands import arguments, run
from parts.need import missing


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


@pytest.mark.parametrize("name", ["root.key", "cas/identity.pem", "cas/sessions.sqlite"])
def test_what_another_user_put_into_the_state_folder_is_refused(native, built, name):
    """Of the right form and mode: whoever wrote it knows the key that is in it."""
    if os.geteuid() != 0:
        missing("the right to give a file to another user")
    path = built.state / name
    if not path.exists():
        path.write_text("7b" * 32)
        path.chmod(0o600)
    os.chown(path, 12345, -1)
    (native / "plain" / "readme").write_bytes(b"changed, so that there is something to do")
    session = built.session.read_bytes()
    ended = run(built, arguments(native, built, "--env=NEW=1"), env={"SCONIFY_ROOT_KEY": ""} if name == "root.key" else {})
    assert ended.code in (1, 2), ended.stderr
    assert ended.stdout == ""
    (line,) = ended.errors
    assert f"{path} belongs to user 12345" in line
    assert name == "cas/sessions.sqlite" or built.session.read_bytes() == session


def test_a_fifo_in_the_place_of_what_is_noted_as_settled_blocks_nobody(native, built):
    noted = [*(built.cache / "settled").iterdir()]
    assert noted
    for path in noted:
        path.unlink()
        os.mkfifo(path, 0o600)
    assert run(built, arguments(native, built)).code == 0
