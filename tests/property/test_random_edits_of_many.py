"""A project of several images through its real door: after any edits, what is built step by step equals a clean build.

Each state is built by a developer with one thread, by one whose images are made in worker processes, by a user elsewhere who
shares nothing but a folder store, and from nothing. Then the first two run again: nothing is left to do, and no project file
is opened. Every run is a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from build.small_image import Place, compile_program
from cli.commands import Ended, arguments
from faults.failing import Zygote
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st
from property.project_tree import Remove, Stack, Write
from property.shop import EDITS, FIRST, Choose, Edit, Lose, Shop, Toggle, Variable
from property.test_random_edits import SEQUENCES

from sconify_tasks.image.validate import validate

RAN = re.compile(r"^[a-z]+: [a-z-]+ done", re.MULTILINE)
TRUSTED_AFTER = 0.1
"""Seconds until a file's stat tells its next change."""
EVERY_KIND: list[tuple[bool, list[Edit]]] = [
    (True, [Variable("MODE", "a")]),
    (True, [Choose("web", "heap", "1G"), Write("two/app/secret", 1, 70_000), Lose("out/api/blobs/sha256/*")]),
    (False, [Toggle("next"), Choose("part defaults", "env", ["P=${MODE:-p}"]), Remove("one/data")]),  # one image fails
    (True, [Toggle("web"), Stack((0, 1)), Lose("out/fs"), Choose("defaults", "dlopen", 2)]),
    (True, [Toggle("next"), Toggle("extra"), Toggle("web"), Write("one/data/kept", 1, 100)]),
]


@pytest.fixture(scope="module")
def program(need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(need("gcc"), tmp_path_factory.mktemp("program") / "prog", "-static")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    found = Zygote(None)
    yield found
    found.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a run came to: its results and errors, and of each image that it names the digest, the session, the Dockerfile."""

    results: list[str]
    errors: list[str]
    images: dict[str, tuple[str, bytes, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Who builds: a place with a cache and a copy of the project of its own, and how."""

    zygote: Zygote
    place: Place
    shop: Shop
    jobs: int
    shared: str = ""

    def run(self) -> tuple[Ended, list[str]]:
        """How a run ended; with a word for every worker that it started and every project file that it opened."""
        seen = self.place.folder.with_suffix(".seen")
        seen.write_text("")
        more = {**self.shop.variables, "SCONIFY_SHARED_CACHE": self.shared}
        words = ["doit", "sconify", "--continue", "-n", str(self.jobs)]
        return self.zygote.run(self.place, words, cpus=2, more=more, seen=seen), seen.read_text().split()

    def made(self, ended: Ended) -> Made:
        names = [line.split()[0] for line in ended.stdout.splitlines()]
        assert ended.code or ended.errors == []
        assert "Traceback" not in ended.stderr
        said = [line for line in ended.stderr.splitlines() if line in ended.errors or "left out" in line]
        errors = sorted(line.replace(str(self.place.folder), "PLACE") for line in said)
        return Made(
            results=sorted(ended.stdout.splitlines()), errors=errors, images={name: self._image(name) for name in names}
        )

    def _image(self, name: str) -> tuple[str, bytes, str]:
        layout, resources = self.place.folder / "out" / name, self.place.resources / name
        validate(layout, "1")
        (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
        dockerfile = (resources / "Dockerfile").read_text().replace(str(self.place.folder), "PLACE")
        return entry["digest"], (resources / "session.yml").read_bytes(), dockerfile

    def has_nothing_left_to_do(self, before: Ended) -> None:
        """Said from what is noted, soon after a run that went well: no project file is opened."""
        assert before.code == 0
        for _ in range(3):
            time.sleep(TRUSTED_AFTER)
            ended, seen = self.run()
            assert (ended.code, ended.stdout) == (0, before.stdout), ended.stderr
            assert not RAN.search(ended.stderr), ended.stderr
            if not seen:
                return
        raise AssertionError("it does not settle")


@contextmanager
def workshop(zygote: Zygote, program: Path) -> Iterator[tuple[Path, Place]]:
    """A folder, and a place in it whose CAS exists."""
    with tempfile.TemporaryDirectory(prefix="edits-") as name:
        folder = Path(name)
        first = Place(folder=folder / "first")
        shop = Shop.make(first.folder, program)
        ended = zygote.run(first, arguments(shop.native / "two", first))
        assert ended.code == 0, ended.stderr
        shutil.rmtree(first.layout)
        shutil.rmtree(first.resources)
        yield folder, first


@given(steps=st.lists(st.tuples(st.booleans(), st.lists(EDITS, min_size=1, max_size=3)), min_size=2, max_size=3))
@example(steps=EVERY_KIND)
@settings(
    max_examples=max(1, SEQUENCES // 8),
    deadline=None,
    derandomize="SCONIFY_TEST_SEQUENCES" not in os.environ,
    phases=(Phase.explicit, Phase.generate, Phase.target),
    suppress_health_check=list(HealthCheck),
)
def test_after_any_edits_of_many_images_the_result_equals_a_clean_build(
    zygote: Zygote, program: Path, steps: list[tuple[bool, list[Edit]]]
) -> None:
    with workshop(zygote, program) as (folder, first):
        (folder / "shared").mkdir()
        shared = str(folder / "shared")
        tree = Shop(folder=first.folder)
        second = first.beside(folder / "second")
        alone = Builder(zygote=zygote, place=first, shop=tree, jobs=1)
        workers = Builder(zygote=zygote, place=second, shop=tree.copy(second.folder), jobs=4, shared=shared)
        for number, (settle, some) in enumerate([(True, []), *steps]):
            for builder in (alone, workers):
                for edit in some:
                    edit.apply(builder.shop)
                builder.shop.save()
            fresh = [first.beside(folder / f"{name}-{number}") for name in ("clean", "elsewhere")]
            clean = Builder(zygote=zygote, place=fresh[0], shop=tree.copy(fresh[0].folder), jobs=1)
            elsewhere = Builder(zygote=zygote, place=fresh[1], shop=tree.copy(fresh[1].folder), jobs=2, shared=shared)
            wanted, _ = clean.run()
            expected = clean.made(wanted)
            for error in expected.errors or ["built"]:
                event(error)
            for builder in (alone, workers, elsewhere):
                ended, seen = builder.run()
                assert builder.made(ended) == expected, ended.stderr
                assert (ended.code == 0) == (wanted.code == 0), ended.stderr
                assert number or seen.count("fork") == min(builder.jobs, len(FIRST) // 2) * (builder.jobs > 1)
                if settle and ended.code == 0 and builder is not elsewhere:
                    builder.has_nothing_left_to_do(ended)
            # The last one to run is the one elsewhere: what is public comes out of the shared folder.
            assert not expected.images or len(RAN.findall(ended.stderr)) < len(RAN.findall(wanted.stderr))
