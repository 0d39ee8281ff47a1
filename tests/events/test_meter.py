"""A step says each chunk; the stream hears a few times a second, and every byte in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks.events import Progressed
from sconify_tasks.meter import Meter


def meter(times):
    events, clock = [], iter(times)
    return Meter(image="i", step="s", emit=events.append, clock=lambda: next(clock)), events


def test_chunks_within_a_tenth_of_a_second_are_one_event():
    found, events = meter(index / 1000 for index in range(1000))
    for _ in range(1000):
        found.progress(10, 10_000)
    assert len(events) == 10


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.floats(0, 1)), max_size=50))
def test_the_last_event_says_everything_and_none_says_less_than_the_one_before(chunks):
    now = [0.0]
    events = []
    found = Meter(image="i", step="s", emit=events.append, clock=lambda: now[0])
    for count, seconds in chunks:
        now[0] += seconds
        found.progress(count, None)
    found.finish()
    told = [event.done for event in events]
    assert told == sorted(told)
    assert (told[-1] if told else 0) == sum(count for count, _ in chunks)
    assert all(isinstance(event, Progressed) and event.total == 0 for event in events), "nobody knows it"


def test_a_total_that_turns_out_too_small_follows_what_is_done():
    found, events = meter(range(3))
    for _ in range(3):
        found.progress(10, 15)
    assert [(event.done, event.total) for event in events] == [(10, 15), (20, 20), (30, 30)]


def test_a_step_that_says_nothing_makes_no_event():
    found, events = meter([])
    found.finish()
    assert events == []
