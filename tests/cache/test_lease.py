"""Leases are held by the living and nobody else."""

import os
import subprocess
import sys

import pytest

from sconify_cache import lease

HOLDER = """
import sys, time
from pathlib import Path
from sconify_cache import lease
own, descriptor = lease.take(Path(sys.argv[1]), now=lambda: 77)
print(own.name, flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lease_of_a_living_process_is_seen_and_of_a_killed_one_buried(tmp_path, holder):
    name = holder.stdout.readline().strip()
    buried = []
    assert lease.survey(tmp_path, buried.append) == (lease.Lease(name=name, since_ns=77),)
    assert buried == []
    holder.kill()
    holder.wait()
    assert lease.survey(tmp_path, buried.append) == ()
    assert buried == [name]
    assert list(tmp_path.iterdir()) == []


def test_a_lease_ends_with_its_block(tmp_path):
    with lease.held(tmp_path, now=lambda: 5) as own:
        assert lease.survey(tmp_path, pytest.fail) == (own,)
        assert own.since_ns == 5
    assert list(tmp_path.iterdir()) == []


def test_a_dead_lease_stays_while_its_remains_cannot_be_removed(tmp_path):
    (tmp_path / "1-dead.lease").write_text("1 pid 1\n")

    def refuse(_name):
        raise PermissionError

    assert lease.survey(tmp_path, refuse) == ()
    assert (tmp_path / "1-dead.lease").exists()


def test_a_lease_that_is_not_yet_written_is_as_old_as_can_be(tmp_path):
    own, descriptor = lease.take(tmp_path)
    os.ftruncate(descriptor, 0)
    assert [held.since_ns for held in lease.survey(tmp_path, pytest.fail)] == [0]
    lease.release(tmp_path, own, descriptor)


def test_a_sweeper_that_comes_between_open_and_lock_only_costs_another_try(tmp_path, monkeypatch):
    real, swept = lease.fcntl.flock, []

    def flock(descriptor, operation):
        if not swept:
            swept.append(1)
            lease.survey(tmp_path, lambda _name: None)
        real(descriptor, operation)

    monkeypatch.setattr(lease.fcntl, "flock", flock)
    own, descriptor = lease.take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [own.name + ".lease"]
    lease.release(tmp_path, own, descriptor)


def test_a_folder_that_does_not_exist_has_no_leases(tmp_path):
    assert lease.survey(tmp_path / "none", pytest.fail) == ()
