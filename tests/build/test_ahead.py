"""Work done ahead: in order, each piece once, and nothing left of it at the end, however that comes."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from sconify_tasks import ahead
from sconify_tasks.ahead import Ahead


def test_results_come_in_the_order_of_the_items_and_only_some_are_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "MANY", 3)
    begun, taken = [], []
    with Ahead[int]() as threads:

        def items():
            for number in range(100):
                begun.append(number)
                slow = 0.002 if number % 7 == 0 else 0
                work = partial(_later, number, slow)
                yield number, (threads.do(work) if number % 3 else number)

        for item, result in threads.in_order(items()):
            assert item == result
            taken.append(item)
            assert len(begun) - len(taken) <= 4
    assert taken == list(range(100))


def _later(number: int, pause: float) -> int:
    time.sleep(pause)
    return number


def test_each_piece_is_done_once_and_by_who_waits_too():
    done, me = [], threading.get_ident()
    with Ahead[None]() as threads:
        release = threading.Event()
        held = [threads.do(release.wait) for _ in threads_of(threads)]
        promises = [threads.do(lambda: done.append(threading.get_ident())) for _ in range(50)]
        while any(held[0] is waiting for waiting in threads._waiting):
            time.sleep(0.001)  # until the threads hang in what they were given
        threads.result(promises[-1])
        assert done[-1] == me
        release.set()
        for promise in (*held, *promises):
            threads.result(promise)
    assert len(done) == 50
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def threads_of(threads: Ahead) -> range:
    """As many as it will have."""
    threads.result(threads.do(lambda: None))
    return range(len(threads._threads))


def test_an_error_is_raised_where_its_result_is_waited_for_and_what_was_not_begun_is_dropped():
    dropped, done, go = [], [], threading.Event()

    def fails() -> None:
        raise KeyError("no")

    def held(number: int) -> None:
        go.wait()
        done.append(number)

    def use() -> None:
        with Ahead[None]() as threads:
            with pytest.raises(KeyError):
                threads.result(threads.do(fails))
            for number in range(20):
                threads.do(partial(held, number), drop=partial(dropped.append, number))
            threading.Timer(0.05, go.set).start()
            raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        use()
    assert sorted(dropped + done) == list(range(20))
    assert len(done) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_what_is_done_holds_nothing_of_its_work():
    class Large:
        pass

    import weakref

    large = Large()
    seen = weakref.ref(large)
    with Ahead[int]() as threads:
        promise = threads.do(partial(lambda _: 1, large))
        del large
        assert threads.result(promise) == 1
        assert seen() is None


def test_without_work_there_are_no_threads():
    before = threading.active_count()
    with Ahead[int]() as threads:
        assert list(threads.in_order(("x", number) for number in range(3))) == [("x", 0), ("x", 1), ("x", 2)]
        assert threading.active_count() == before


def test_an_interruption_while_threads_are_started_is_what_is_told(monkeypatch):
    begun, real = [], threading.Thread.start

    def start(thread) -> None:
        begun.append(thread)
        if len(begun) == 2:
            raise KeyboardInterrupt
        real(thread)

    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt), Ahead[None]() as threads:
        threads.do(lambda: None)
    begun[0].join(10)
    assert not begun[0].is_alive()


def test_an_interruption_of_who_helps_is_raised_at_once():
    def interrupted() -> None:
        raise KeyboardInterrupt

    release = threading.Event()
    with Ahead[None]() as threads:
        held = [threads.do(release.wait) for _ in threads_of(threads)]
        while any(held[0] is waiting for waiting in threads._waiting):
            time.sleep(0.001)
        threads.do(interrupted)
        last = threads.do(lambda: None)
        with pytest.raises(KeyboardInterrupt):
            threads.result(last)
        release.set()
        threads.result(last)
