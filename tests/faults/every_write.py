"""A build whose disk fails at one of its writes, and what must be true of it. Tests and the run of all writes share this."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from build.small_image import Place
from cli.commands import Ended
from faults.failing import Fault
from faults.scenarios import Scenario, delivered, left_nothing_readable, nobody_works_in, validated

DATABASE = re.compile(r"\.(db|sqlite)\b")
# What SQLite makes of an error depends on where it happens: a write, a sync, a file that can't be opened.
OF_DATABASES = "is full|disk I/O error|unable to open|readonly database"
NOT_REACHED = "not reached"
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the builds ended; `wrong` tells of each that broke a promise. Not reached: that run wrote less than the counted one."""

    codes: Counter[int | str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def try_writes(scenario: Scenario, calls: Sequence[str], numbers: Iterable[int], fault: Fault, *, cpus: int = 1) -> Tally:
    """A build for each of `numbers`, which meets `fault` at that write and is followed by one that meets none.

    `calls` are the writes of a build that meets none. What is wrong is printed at once: a run of all takes long.
    """
    tally = Tally()
    hit = scenario.folder / "hit"
    for at in numbers:
        hit.unlink(missing_ok=True)
        said = ""
        try:
            with scenario.fresh(f"{at}-{fault.error}-{int(fault.stays)}") as place:
                ended = scenario.run(place, replace(fault, at=at), cpus=cpus, log=hit)
                said = ended.stderr
                nobody_works_in(place)
                first = hit.read_text().splitlines()[:1]
                tally.codes[ended.code if first else NOT_REACHED] += 1
                tally.kinds[first[0].split()[1] if first else NOT_REACHED] += 1
                if fault.signal:
                    ended_by_signal(ended, place, scenario.good, fault)
                else:
                    ended_clearly(ended, place, scenario, fault.error)
                scenario.is_sound(place)
        except Exception as error:  # noqa: BLE001 - all of them are to be seen
            where = calls[at - 1] if at <= len(calls) else "?"
            tally.wrong.append(f"{at}: {where}: {type(error).__name__}: {str(error)[:1500]}\n{said[-1500:]}")
            print(tally.wrong[-1], flush=True)  # noqa: T201
    return tally


def ended_by_signal(ended: Ended, place: Place, good: Place, fault: Fault) -> None:
    """As its kind wants it; or 0, where everything was done when it came."""
    left_nothing_readable(place)
    assert "Traceback" not in ended.stderr
    if ended.code == 0:
        assert delivered(place) == delivered(good)
        return
    assert ended.stdout == "" or ended.code == -fault.signal
    if fault.signal == signal.SIGINT:
        assert ended.code == INTERRUPTED
    elif fault.to_writer and ended.code == 1:
        (line,) = ended.errors
        assert "the worker process that made it is gone" in line
    else:
        assert ended.code == -fault.signal, ended.stderr


def ended_clearly(ended: Ended, place: Place, scenario: Scenario, number: int) -> None:
    if ended.code == 2:  # before any work was done
        assert re.match(r"Error: --(events|trace)=\S+ can't be written: ", ended.errors[0]), ended.stderr
    else:
        assert ended.code in (0, 1)
    for sign in ("Traceback", "Exception ignored", "Fatal Python"):
        assert sign not in ended.stderr
    left_nothing_readable(place)
    if ended.code == 0:
        assert ended.stdout
        assert delivered(place) == delivered(scenario.good)
        return
    assert ended.stdout == ""
    assert 1 <= len(ended.errors) <= scenario.processes, ended.stderr
    for line in ended.errors:
        reasons = f"{OF_DATABASES}|{os.strerror(number)}" if DATABASE.search(line) else os.strerror(number)
        assert re.search(reasons, line), line
        assert re.search(r": \S", line)
    layouts = validated(place)
    for layout in layouts:
        index = (layout / "index.json").relative_to(place.folder)
        assert (place.folder / index).read_bytes() == (scenario.good.folder / index).read_bytes()
    for session in place.resources.rglob("session.yml"):
        assert {place.layout, place.layout / session.parent.name} & {*layouts}, session
