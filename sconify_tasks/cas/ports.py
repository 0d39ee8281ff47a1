"""What all ports of the server share: work off the reactor's thread, deadlines, caps on connections, a drain at the end.

This and the other `*_port` files import Twisted at their top: only `server` imports them, and only when it serves.
"""

# mypy: disable-error-code="no-untyped-call,override,assignment,method-assign,misc"
# Twisted is typed in part: its transports are interfaces that mypy can't follow.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from sconify_tasks.ui import clean

MAX_CONNECTIONS = 128
# From the connection's first byte to the last byte of a request, and again from each reply to the end of the next request.
REQUEST_SECONDS = 20.0
# How long a peer that was refused may take to read why.
FAREWELL_SECONDS = 1.0


class Work:
    """Requests being carried out, on the reactor's thread pool: the disk and YAML are too slow for its own thread."""

    def __init__(self, reactor: Any, log: Callable[[str], None]) -> None:
        self.reactor = reactor
        self.log = log
        self._in_flight = 0
        self._idle: list[Deferred[None]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run a function on a thread; the Deferred fires on the reactor's thread."""
        self._in_flight += 1
        result: Deferred[Any] = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)
        return result.addBoth(self._done)

    def idle(self) -> Deferred[None]:
        """Return what fires when nothing is being carried out."""
        waiting: Deferred[None] = Deferred()
        if self._in_flight:
            self._idle.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def _done(self, result: Any) -> Any:
        self._in_flight -= 1
        if not self._in_flight:
            waiting, self._idle = self._idle, []
            for one in waiting:
                # Not now: the callbacks that write the reply come after this one.
                self.reactor.callLater(0, one.callback, None)
        return result

    def bug(self, failure: Failure) -> None:
        """Report what should not have happened, without the request's content."""
        self.log(f"internal error: {type(failure.value).__name__}: {clean(failure.getErrorMessage()[:200])}")


class Deadline:
    """Aborts a connection whose peer takes too long. TLS handshakes count: it starts with the TCP connection."""

    def __init__(self, work: Work, abort: Callable[[], Any]) -> None:
        self._work = work
        self._abort = abort
        self._call: Any = None

    def start(self, seconds: float = REQUEST_SECONDS) -> None:
        """Count from now."""
        self.stop()
        self._call = self._work.reactor.callLater(seconds, self._expired)

    def stop(self) -> None:
        """Stop counting: it is our turn, or the connection is gone."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _expired(self) -> None:
        self._call = None
        self._abort()


class Capped(WrappingFactory):
    """Outermost factory of a port: further connections are closed before they cost anything, and open ones can be listed."""

    noisy = False

    def buildProtocol(self, addr: IAddress) -> Protocol | None:  # noqa: N802 - Twisted's name
        """Refuse beyond the cap."""
        return super().buildProtocol(addr) if len(self.protocols) < MAX_CONNECTIONS else None

    def lose_all(self) -> None:
        """Close what is open; replies already written are still sent."""
        for protocol in list(self.protocols):
            protocol.loseConnection()
