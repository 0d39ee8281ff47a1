"""Work that threads do while one thread goes on looking for more of it; who would have to wait for it helps.

For many pieces of some tenths of a millisecond, most of it outside of the interpreter's lock (hashing, copying): with
concurrent.futures a piece costs half as much again, and the thread that looks for work stands still while it waits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread, local
from typing import Final, Generic, NoReturn, Self, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
_MOST_THREADS: Final = 3
MANY: Final = 64
"""So many pieces are ahead at most: each may hold a descriptor."""


class ThreadBuffer(local):
    """Memory of a fixed size to read into, one for each thread."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))


@dataclass(slots=True)
class Promise(Generic[T]):
    """What a piece of work will yield. `drop` lets go of what it holds where it is never done; done, it holds nothing."""

    work: Callable[[], T]
    drop: Callable[[], None]
    done: bool = False
    result: T | None = None
    error: BaseException | None = None


class Ahead(Generic[T]):
    """Threads that do work. A context manager: at its end none of them is left, and what was not begun is dropped."""

    def __init__(self) -> None:
        self._waiting: deque[Promise[T]] = deque()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; drop what was not begun."""
        while (promise := self._next()) is not None:
            promise.drop()
        for _thread in self._threads:
            self._calls.put(False)  # noqa: FBT003 - the last call
        for thread in self._threads:
            if thread.is_alive():  # a Ctrl-C may have come before it was started; one that is just starting hears its last call
                thread.join()

    def do(self, work: Callable[[], T], *, drop: Callable[[], None] = lambda: None) -> Promise[T]:
        """Have something done soon. The first call starts the threads."""
        if not self._threads:
            self._start()
        promise = Promise(work, drop)
        self._waiting.append(promise)
        self._calls.put(True)  # noqa: FBT003 - a call
        return promise

    def result(self, promise: Promise[T]) -> T:
        """What it yields, or raises. Until then this thread works, too."""
        while not promise.done:
            other = self._next()
            if other is not None:
                _fulfil(other)
            else:
                self._done.get()
        if promise.error is not None:
            raise promise.error
        return promise.result  # type: ignore[return-value]  # what the work returned

    def in_order(self, items: Iterable[tuple[Item, T | Promise[T]]]) -> Iterator[tuple[Item, T]]:
        """Each item with what was promised for it, in the order in which they come; `MANY` are ahead at most."""
        ahead: deque[tuple[Item, T | Promise[T]]] = deque()
        for item in items:
            ahead.append(item)
            while ahead and (len(ahead) > MANY or not isinstance(ahead[0][1], Promise) or ahead[0][1].done):
                yield self._kept(*ahead.popleft())
        while ahead:
            yield self._kept(*ahead.popleft())

    def _kept(self, item: Item, promised: T | Promise[T]) -> tuple[Item, T]:
        return item, self.result(promised) if isinstance(promised, Promise) else promised

    def _start(self) -> None:
        count = max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) - 1))  # beside the one that looks for work
        self._threads = [Thread(target=self._serve, name="ahead", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        while self._calls.get():
            promise = self._next()
            if promise is not None:  # else somebody who waited did it
                _fulfil(promise)
                self._done.put(None)

    def _next(self) -> Promise[T] | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None


def _fulfil(promise: Promise[T]) -> None:
    try:
        promise.result = promise.work()
    except Exception as error:  # noqa: BLE001 - raised where it is waited for
        promise.error = error
    except BaseException as error:  # a Ctrl-C, which waits for nothing
        promise.error = error
        raise
    finally:
        promise.work, promise.drop, promise.done = _over, lambda: None, True


def _over() -> NoReturn:
    raise AssertionError("done already")
