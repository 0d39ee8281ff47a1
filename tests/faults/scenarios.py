"""What is run when something fails: each front door, with everything that it writes; and what must be true afterwards."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from build.small_image import SECRET, Place
from cli.commands import Ended, arguments, temporary
from faults.failing import NONE, Fault, Zygote

from sconify_cache.gc import verify
from sconify_cache.house import open_house
from sconify_tasks.image.validate import validate

PROJECT = """\
version: 1
project: small
images:
  small: {{from: "dir:{native}", to: "oci:{layout}:small", base: scratch, binary: /bin/prog, dir: [/app], plain: [/plain],
    allow-debug-mode: true, disable-pie-check: true}}
"""
MANY = """\
version: 1
project: many
defaults: {{from: "dir:{native}", base: scratch, binary: /bin/prog, dir: [/app], allow-debug-mode: true, disable-pie-check: true}}
images:
"""
IMAGES = 4
"""As many as two jobs need to be worth worker processes."""
MEMORY = Path("/dev/shm")
PATIENCE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A command line, and a place where it went well. `seed` is a place whose CAS is there and serves another session.

    So many `processes` may each say why they failed.
    """

    zygote: Zygote
    words: Callable[[Place], Sequence[str]]
    folder: Path
    seed: Place
    good: Place
    processes: int = 1

    def run(self, place: Place, fault: Fault = NONE, *, cpus: int = 1, log: Path | None = None) -> Ended:
        return self.zygote.run(place, self.words(place), fault, cpus=cpus, log=log)

    @contextmanager
    def fresh(self, name: object = "fresh") -> Iterator[Place]:
        """A place where nothing was built yet. It goes when all is well, and stays to be looked at otherwise."""
        place = self.seed.beside(self.folder / f"at-{name}")
        yield place
        shutil.rmtree(place.folder)

    def writes(self, *, signal: int = 0) -> list[str]:
        """What a build writes: a line a call."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        with self.fresh("none") as place:
            ended = self.run(place, Fault(signal=signal), log=log)
            assert ended.code == 0, ended.stderr
        return log.read_text().splitlines()

    def is_sound(self, place: Place) -> None:
        """The store is valid as it is; the next build gives, byte for byte, what a clean one gives, and leaves no scraps."""
        verified(place)
        ended = self.run(place)
        assert ended.code == 0, ended.stderr
        assert validated(place)
        assert delivered(place) == delivered(self.good)
        assert list((place.cache / "store" / "tmp").iterdir()) == []
        assert list(temporary(place).iterdir()) == []
        assert verified(place) == 0


def image_words(native: Path) -> Callable[[Place], list[str]]:
    """`sconify_image`, with a shared cache folder, an event log and a trace."""

    def words(place: Place) -> list[str]:
        (place.folder / "shared-cache").mkdir(exist_ok=True)  # a build makes none
        ours = [f"--{name}={place.folder / name}" for name in ("shared-cache", "events", "trace")]
        return arguments(native, place, *ours)

    return words


def project_words(native: Path, *more: str) -> Callable[[Place], list[str]]:
    """`doit sconify`, which has doit's state and remembers what is settled."""

    def words(place: Place) -> list[str]:
        (place.folder / "sconify.yaml").write_text(PROJECT.format(native=native, layout=place.layout))
        return ["doit", "sconify", *more]

    return words


def many_words(native: Path, *more: str) -> Callable[[Place], list[str]]:
    """`doit sconify` of more images than two jobs take as threads: they are made in worker processes."""

    def words(place: Place) -> list[str]:
        lines = [
            f"  image-{number}: {{to: 'oci:{place.layout}/image-{number}:1', env: [N={number}]}}\n" for number in range(IMAGES)
        ]
        (place.folder / "sconify.yaml").write_text(MANY.format(native=native) + "".join(lines))
        return ["doit", "sconify", "-n", "2", *more]

    return words


@contextmanager
def scenario(
    zygote: Zygote, native: Path, words: Callable[[Place], Sequence[str]], *, processes: int = 1
) -> Iterator[Scenario]:
    """Made in memory where that can be: a fault comes before the kernel is asked, so the disk's own speed says nothing."""
    folder = Path(tempfile.mkdtemp(prefix="sconify-faults-", dir=MEMORY if MEMORY.is_dir() else None))
    seed, good = Place(folder=folder / "seed"), Place(folder=folder / "good")
    seed.folder.mkdir()
    ended = zygote.run(seed, arguments(native, seed, "--name=another-session"))
    assert ended.code == 0, ended.stderr
    made = seed.beside(good.folder)
    found = Scenario(zygote=zygote, words=words, folder=folder, seed=seed, good=made, processes=processes)
    ended = found.run(found.good)
    assert ended.code == 0, ended.stderr
    yield found
    if not any(path.is_dir() and path.name.startswith("at-") for path in folder.iterdir()):
        shutil.rmtree(folder)


def delivered(place: Place) -> dict[str, bytes]:
    """All that a build leaves to its user, but for lock files: bytes by path."""
    sessions = [*place.resources.rglob("session.yml")]
    assert {path.stat().st_mode & 0o777 for path in sessions} == {0o600}
    paths = [*place.layout.rglob("*"), *place.resources.rglob("*")]
    files = [path for path in paths if path.is_file() and path.name != ".sconify.lock"]
    return {str(path.relative_to(place.folder)): path.read_bytes() for path in files}


def validated(place: Place) -> list[Path]:
    """The layouts that were delivered, each of them valid."""
    found = [path.parent for path in sorted(place.layout.rglob("index.json"))]
    for layout in found:
        validate(layout)
    return found


def verified(place: Place) -> int:
    """No blob is damaged; returns how many records name a blob that is not there."""
    if not (place.cache / "store").exists():
        return 0
    house = open_house(place.cache)
    found = verify(house.store, index=house.index, repair=False)
    house.close()
    assert found.damaged == ()
    return found.incomplete


def left_nothing_readable(place: Place) -> None:
    """No plaintext of a protected file in whatever a run left."""
    for path in place.folder.rglob("*"):
        assert not path.is_file() or SECRET[:30] not in path.read_bytes(), path


def nobody_works_in(place: Place) -> None:
    """A run's processes end with it, killed or not: the kernel sees to that at once, but not in no time."""
    end = time.monotonic() + PATIENCE
    while found := _processes_in(place):
        assert time.monotonic() < end, found
        time.sleep(0.01)


def _processes_in(place: Place) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(place.folder):
                found.append(process.name)
    return found
