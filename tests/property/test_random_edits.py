"""For random sequences of edits, what is built step by step equals a clean build, byte for byte.

Each sequence is built four times over: with one thread, with four, by a user elsewhere who shares nothing but a folder
store, and from nothing. The state folder (keys, CAS) is the same, because they are inputs like any other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from build.small_image import Place, Recorder, compile_program, convert, make_native, world_of
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from property.project_tree import EDITS, Edit, Tree

from sconify_dodo.front import Order, build_all
from sconify_tasks.errors import SconifyError
from sconify_tasks.image.validate import validate
from sconify_tasks.project import load_project

SEQUENCES = int(os.environ.get("SCONIFY_TEST_SEQUENCES", "8"))


@pytest.fixture(scope="module")
def program(need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(need("gcc"), tmp_path_factory.mktemp("program") / "prog", "-static")


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Who builds: a place with a cache of its own, and how."""

    place: Place
    jobs: int
    variables: Mapping[str, str]

    def build(self, tree: Tree) -> tuple[str, bytes, str] | str:
        """The image's digest, the session and the Dockerfile; or the error, with the folders' names taken out."""
        project = load_project(tree.save(self.place))
        recorder = Recorder()
        orders = [Order(name="small", options=project.images["small"], resources=self.place.resources)]
        try:
            with world_of(self.place, recorder, **self.variables) as world:
                code = build_all(world, orders, jobs=self.jobs, keep_going=False, debug=True).code
        except SconifyError as error:
            return self._neutral(str(error), tree)
        if code:
            (message,) = (event.message for event in recorder.events if event.kind == "step-failed")
            return self._neutral(message, tree)
        validate(self.place.layout, "small")
        dockerfile = self._neutral((self.place.resources / "Dockerfile").read_text(), tree)
        return self.place.image_digest(), self.place.session.read_bytes(), dockerfile

    def _neutral(self, text: str, tree: Tree) -> str:
        return text.replace(str(tree.folder), "PROJECT").replace(str(self.place.folder), "PLACE")


@contextmanager
def workshop(program: Path) -> Iterator[tuple[Path, Place]]:
    """A folder, and a place in it whose CAS exists."""
    with tempfile.TemporaryDirectory(prefix="edits-") as name:
        folder = Path(name)
        (folder / "first").mkdir()
        first = Place(folder=folder / "first")
        assert convert(make_native(folder / "warm-up" / "native", program), first).code == 0
        shutil.rmtree(first.layout)
        shutil.rmtree(first.resources)
        yield folder, first


@given(edits=st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=2, max_size=5))
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    derandomize="SCONIFY_TEST_SEQUENCES" not in os.environ,
    phases=(Phase.explicit, Phase.generate, Phase.target),
    suppress_health_check=list(HealthCheck),
)
def test_after_any_edits_the_result_equals_a_clean_build(program: Path, edits: list[list[Edit]]) -> None:
    with workshop(program) as (folder, first):
        shared = {"SCONIFY_SHARED_CACHE": str(folder / "shared")}
        (folder / "shared").mkdir()
        tree = Tree.make(folder / "project", program)
        alone = Builder(place=first, jobs=1, variables={})
        threads = Builder(place=first.beside(folder / "threads"), jobs=4, variables=shared)
        for number, some in enumerate([[], *edits]):
            for edit in some:
                edit.apply(tree)
            clean = Builder(place=first.beside(folder / f"clean-{number}"), jobs=1, variables={})
            elsewhere = Builder(place=first.beside(folder / f"elsewhere-{number}"), jobs=2, variables=shared)
            expected = clean.build(tree)
            event(expected if isinstance(expected, str) else "built")
            assert alone.build(tree) == expected
            assert threads.build(tree) == expected
            assert elsewhere.build(tree.copy(folder / "another" / "project")) == expected
