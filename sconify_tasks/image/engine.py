"""The Docker Engine, as far as sources and sinks share it: reaching it, and its errors as ours, with its own words kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sconify_tasks.errors import UnavailableError

if TYPE_CHECKING:
    from docker import DockerClient


def connect(factory: Callable[[], DockerClient]) -> DockerClient:
    """Return a client of an engine that answers. UnavailableError says why there is none."""
    with engine_errors("the Docker Engine"):
        client = factory()
        client.ping()
    return client


def api_of(client: DockerClient) -> Any:
    """Return the client's low-level interface, untyped: its stubs are partial."""
    return client.api


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn what the SDK raises while `what` is done into an UnavailableError."""
    import requests.exceptions
    from docker import errors

    try:
        yield
    except errors.NotFound as error:
        msg = f"{what}: {_once(str(error.explanation or error))}"
        raise UnavailableError(msg, hint="check the name, or pull or build the image first") from error
    except errors.APIError as error:
        msg = f"{what}: the engine says: {error.explanation or error}"
        raise UnavailableError(msg, hint="see the engine's log, or use oci:DIR:TAG, which needs no engine") from error
    except (errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        msg = f"{what}: {_cause(error)}"
        raise UnavailableError(
            msg, hint="start the engine and check DOCKER_HOST, or use oci:DIR:TAG, which needs none"
        ) from error


def _once(said: str) -> str:
    """What the engine says; it says `no such image: NAME: No such image: NAME`."""
    half = (len(said) - 2) // 2
    first, second = said[:half], said[half + 2 :]
    return second if said and first.lower() == second.lower() else said


def _cause(error: BaseException) -> str:
    """Dig out the innermost reason: the SDK wraps "connection refused" four times."""
    seen: BaseException = error
    while isinstance(seen.__cause__ or seen.__context__, Exception):
        inner = seen.__cause__ or seen.__context__
        assert inner is not None
        seen = inner
    return f"no answer from the engine: {str(seen)[:300]}"
