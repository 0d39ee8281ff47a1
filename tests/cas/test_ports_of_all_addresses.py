"""A free port is one that is free on every address."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from twisted.internet.error import CannotListenError

from sconify_tasks.cas.embedded import open_embedded
from sconify_tasks.cas.server import Listen, Server
from sconify_tasks.errors import UnavailableError


@dataclass
class Machine:
    """Stands in for a reactor, to say which ports are free: on the second address those from `free` on."""

    free: int
    next: int = 5000
    open: set[tuple[str, int]] = field(default_factory=set)

    def listenTCP(self, port, factory, backlog, address):  # noqa: N802 - Twisted's name
        if port == 0:
            port, self.next = self.next, self.next + 1
        elif port < self.free:
            raise CannotListenError(address, port, OSError("Address already in use"))
        self.open.add((address, port))
        return Port(self, (address, port))


@dataclass
class Port:
    machine: Machine
    place: tuple[str, int]

    def getHost(self):  # noqa: N802 - Twisted's name
        return type("Host", (), {"port": self.place[1]})

    def stopListening(self):  # noqa: N802 - Twisted's name
        self.machine.open.remove(self.place)


WHERE = Listen(addresses=("127.0.0.2", "127.0.0.1"), api_port=0, enclave_port=0, las_port=None)


def server_on(machine, tmp_path):
    service = open_embedded(tmp_path, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    return Server(service, machine, lambda _line: None)


def test_another_port_is_chosen_where_the_first_is_taken_on_the_second_address(tmp_path):
    machine = Machine(free=5003)
    assert server_on(machine, tmp_path).listen(WHERE) == {"api": 5003, "enclave": 5004}
    assert machine.open == {(address, port) for address in WHERE.addresses for port in (5003, 5004)}


def test_choices_come_to_an_end(tmp_path):
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:5008 \(api\) can't be bound"):
        server_on(Machine(free=9000), tmp_path).listen(WHERE)
