"""Deadlines and caps, on Twisted's own test clock and transports: no test waits."""

from __future__ import annotations

import struct

import pytest
from quotes.quote_support import NOW
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from sconify_tasks.cas.embedded import open_embedded
from sconify_tasks.cas.frame_port import FrameFactory, las_answer
from sconify_tasks.cas.frames import decode_body
from sconify_tasks.cas.http_port import ApiFactory
from sconify_tasks.cas.ports import FAREWELL_SECONDS, MAX_CONNECTIONS, REQUEST_SECONDS, Capped, Work

PEER = IPv4Address("TCP", "127.0.0.1", 1)
BEGINNINGS = {
    "api": [b"", b"GET ", b"POST /v1/sessions HTTP/1.1\r\nContent-Length: 100\r\n\r\n"],
    "las": [b"", b"\0", struct.pack(">I", 100) + b"{"],
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    return open_embedded(tmp_path_factory.mktemp("slow"), now=lambda: NOW)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def factories(service, clock):
    work = Work(clock, print)
    return {"api": ApiFactory(work, service), "las": FrameFactory(work, las_answer(service.platform))}


def connect(factory):
    protocol, transport = factory.buildProtocol(PEER), StringTransport(peerAddress=PEER)
    protocol.makeConnection(transport)
    return protocol, transport


@pytest.mark.parametrize(("port", "sent"), [(port, sent) for port, every in BEGINNINGS.items() for sent in every])
def test_a_peer_that_stops_in_the_middle_is_aborted(factories, clock, port, sent):
    protocol, transport = connect(factories[port])
    protocol.dataReceived(sent)
    clock.advance(REQUEST_SECONDS - 0.1)
    assert not transport.disconnected
    assert not transport.disconnecting
    clock.advance(0.2)
    assert transport.disconnected or transport.disconnecting


@pytest.mark.parametrize(("port", "start"), [("api", b"GET / HTTP/1.1\r\nA: "), ("las", struct.pack(">I", 1000))])
def test_single_bytes_in_time_do_not_extend_the_deadline(factories, clock, port, start):
    protocol, transport = connect(factories[port])
    protocol.dataReceived(start)
    while not (transport.disconnecting or transport.disconnected) and clock.seconds() < 10 * REQUEST_SECONDS:
        protocol.dataReceived(b"x")
        clock.advance(1)
    assert clock.seconds() == REQUEST_SECONDS


def test_a_refused_peer_that_never_hangs_up_is_aborted(factories, clock):
    protocol, transport = connect(factories["las"])
    protocol.dataReceived(struct.pack(">I", 3) + b"xyz" + b"more that is not read")
    assert decode_body(transport.value()[4:])["error"]["code"] == "bad-request"
    aborted = []
    transport.abortConnection = lambda: aborted.append(clock.seconds())
    clock.advance(FAREWELL_SECONDS)
    assert aborted == [FAREWELL_SECONDS]


def test_nothing_is_left_to_fire_when_a_peer_is_gone(factories, clock):
    for factory in factories.values():
        protocol, _ = connect(factory)
        protocol.connectionLost(connectionDone)
    assert clock.getDelayedCalls() == []


def test_connections_beyond_the_cap_are_closed_and_room_comes_back(factories):
    capped = Capped(factories["las"])
    open_ones = [connect(capped) for _ in range(MAX_CONNECTIONS)]
    assert capped.buildProtocol(PEER) is None
    open_ones[0][0].connectionLost(connectionDone)
    assert capped.buildProtocol(PEER) is not None
    capped.lose_all()
    assert all(transport.disconnecting for _, transport in open_ones[1:])
