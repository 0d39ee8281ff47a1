"""Fixtures for everybody. What they give is real: an engine, a registry, a Debian root file system."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from parts.containerd_engine import running_containerd_engine
from parts.debian import debian_rootfs_tar
from parts.delivered import deliveries_looked_at
from parts.engine import Engine, running_engine
from parts.need import Need, find_tool
from parts.registry import running_registry

# How long an example takes is the machine's affair, and it may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def started_as_from_a_terminal() -> None:
    """What tests start has the usual signals: a shell makes its background jobs ignore SIGINT, nohup SIGHUP, and that is inherited.

    Before every test: a command that ran in this process and ended ignores them, too.
    """
    for one in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(one) == signal.SIG_IGN:
            # Not the default: the tests themselves go on. What has a handler gets the default in a new program.
            signal.signal(one, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def deliveries() -> Iterator[list[str]]:
    with deliveries_looked_at() as wrong:
        yield wrong


@pytest.fixture(autouse=True)
def what_was_delivered_is_valid(request: pytest.FixtureRequest, deliveries: list[str]) -> Iterator[None]:
    """Every image in files that was delivered in this process until now; where the test says that it is not, it is not."""
    yield
    wrong = deliveries[:]
    deliveries.clear()
    assert bool(wrong) == bool(request.node.get_closest_marker("delivers_damage")), "\n".join(wrong)


@pytest.fixture(scope="session")
def need() -> Need:
    """`need("skopeo")` is the program's path; without it the test is skipped, or fails where all must run."""
    return find_tool


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd_engine() -> Iterator[Engine]:
    with running_containerd_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def debian_rootfs() -> Path:
    return debian_rootfs_tar()
