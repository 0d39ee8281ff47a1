"""The server: three ports on every address, until a signal; then no new connections, and what was begun is finished."""

# mypy: disable-error-code="no-untyped-call,override,assignment,method-assign,misc"
# Twisted is typed in part: its transports are interfaces that mypy can't follow.

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent, globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer  # type: ignore[import-untyped]

from sconify_tasks.cas.frame_port import FrameFactory, enclave_answer, las_answer
from sconify_tasks.cas.http_port import ApiFactory
from sconify_tasks.cas.ports import Capped, Work
from sconify_tasks.cas.service import CasService
from sconify_tasks.cas.tls import api_context, enclave_context
from sconify_tasks.errors import UnavailableError

DRAIN_SECONDS = 5.0
FLUSH_SECONDS = 1.0
_THREADS = 8
_BACKLOG = 128
_CHOICES = 8


class Listen(Struct, frozen=True, kw_only=True):
    """Where to listen. Port 0 is any free one; `las_port` None is no LAS."""

    addresses: tuple[str, ...]
    api_port: int = 8081
    enclave_port: int = 18765
    las_port: int | None = 18766


@implementer(IOpenSSLServerConnectionCreator)
class _Connections:
    """Hands Twisted a connection of an OpenSSL context as it is: its own context class would add opinions."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def serverConnectionForTLS(self, protocol: Any) -> Any:  # noqa: ARG002, N802 - Twisted's signature
        """One connection."""
        from OpenSSL import SSL

        return SSL.Connection(self._context, None)


class Server:
    """Ports of one CAS on one reactor."""

    def __init__(self, service: CasService, reactor: Any, log: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._work = Work(reactor, log)
        self._factories = {
            "api": Capped(_over_tls(api_context(service.key), ApiFactory(self._work, service), reactor)),
            "enclave": Capped(
                _over_tls(enclave_context(service.key), FrameFactory(self._work, enclave_answer(service)), reactor)
            ),
            "las": Capped(FrameFactory(self._work, las_answer(service.platform))),
        }
        self._ports: list[Any] = []

    def listen(self, where: Listen) -> dict[str, int]:
        """Open every port on every address; return the port numbers. UnavailableError names what can't be bound."""
        wanted = {"api": where.api_port, "enclave": where.enclave_port, "las": where.las_port}
        return {name: self._bind(name, port, where.addresses) for name, port in wanted.items() if port is not None}

    def _bind(self, name: str, port: int, addresses: tuple[str, ...], choices: int = _CHOICES) -> int:
        """Open one number on all addresses. Of port 0 the first one chooses it, again where it is taken on another."""
        opened: list[Any] = []
        number = port
        for address in addresses:
            try:
                bound = self._reactor.listenTCP(number, self._factories[name], _BACKLOG, address)
            except (CannotListenError, OSError) as error:
                if opened and port == 0 and choices > 0:
                    for taken in opened:
                        self._ports.remove(taken)
                        taken.stopListening()
                    return self._bind(name, port, addresses, choices - 1)
                reason = getattr(error, "socketError", error)
                raise UnavailableError(
                    f"{address}:{number} ({name}) can't be bound: {reason}",
                    hint=f"stop what holds it, or choose another --{name}-port",
                ) from error
            opened.append(bound)
            self._ports.append(bound)
            number = bound.getHost().port
        return number

    def drain(self) -> Deferred[Any]:
        """Close the ports, finish what was begun, send it, hang up. Bounded: a peer can't hold up the end."""
        closed = [maybeDeferred(port.stopListening) for port in self._ports]
        done: Deferred[Any] = self._work.idle()
        done.addTimeout(DRAIN_SECONDS, self._reactor)
        done.addErrback(lambda _: None)
        done.addCallback(lambda _: self._hang_up())
        done.addCallback(lambda _: DeferredList(closed))
        return done

    def _hang_up(self) -> Deferred[Any]:
        for factory in self._factories.values():
            factory.lose_all()
        return self._gone(FLUSH_SECONDS)

    def _gone(self, seconds: float) -> Deferred[Any]:
        step = 0.05
        if seconds <= 0 or not any(factory.protocols for factory in self._factories.values()):
            return deferLater(self._reactor, 0, lambda: None)
        gone: Any = self._gone
        return deferLater(self._reactor, step, gone, seconds - step)


def _over_tls(context: Any, factory: Any, reactor: Any) -> Any:
    connections: Any = _Connections(context)
    wrapped = TLSMemoryBIOFactory(connections, isClient=False, wrappedFactory=factory, clock=reactor)
    wrapped.noisy = False
    return wrapped


def serve(service: CasService, where: Listen, *, out: TextIO, log: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. One line of JSON on `out` says which ports are open, once they are."""
    from twisted.internet import reactor

    loop: Any = reactor
    observer: Any = _bugs_to(log)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    loop.suggestThreadPoolSize(_THREADS)
    server = Server(service, loop, log)
    ports = server.listen(where)
    loop.addSystemEventTrigger("before", "shutdown", server.drain)
    line = {"listen": where.addresses, **{f"{name}_port": port for name, port in ports.items()}, "spki": service.spki_hash}
    loop.callWhenRunning(lambda: print(json.dumps(line), file=out, flush=True))  # signals are handled from here on
    loop.run()


def _bugs_to(log: Callable[[str], None]) -> Callable[[dict[str, Any]], None]:
    def observe(event: dict[str, Any]) -> None:
        level = event.get("log_level")
        if level is not None and level >= LogLevel.error:
            text = formatEvent(event).strip().splitlines()
            log(f"internal error: {' | '.join(text[-3:])[:400]}")

    return observe
