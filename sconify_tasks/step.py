"""What a step is. One step per file under `steps/`; a step may use every room below it and never another step.

A step is handed exactly the inputs and options that it declares, so its key can't miss one; touching another raises.
The same inputs give the same bytes: no clock, no randomness and no environment in `run`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from sconify_cache.digest import Digest
from sconify_cache.keys import JSON
from sconify_cache.store import MissingBlobError
from sconify_tasks.events import Detail, LayerDelivered, Noted, Warned

if TYPE_CHECKING:
    from sconify_cache.local import LocalStore
    from sconify_tasks.image.source import SourceImage
    from sconify_tasks.meter import Meter
    from sconify_tasks.options import OptionsView
    from sconify_tasks.sgx.signer import Signer
    from sconify_tasks.world import World

IMAGES = frozenset({"external.native", "external.base"})
"""Inputs that another image of the project may be."""

Json = JSON
Value = JSON
# A Digest is a string of its own type: a blob among facts.
DETAILS = "details"
"""The blob of what a step told: no other step takes it."""


class Outputs(Struct, frozen=True, kw_only=True):
    """What a step yields: blobs of the store by name, and small facts. Facts hold no secret."""

    blobs: Mapping[str, Digest] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Value:
        return self.blobs[name] if name in self.blobs else self.facts[name]

    def with_details(self, messages: Sequence[str], store: LocalStore) -> Outputs:
        """The same, with what the step told those who ask for details: names of the native image, in a private blob."""
        if not messages:
            return self
        kept = store.put(json.dumps(messages).encode(), private=True)
        return Outputs(blobs={**self.blobs, DETAILS: kept}, facts=self.facts)

    def details(self, store: LocalStore) -> tuple[str, ...]:
        """What the step told; nothing where that is gone."""
        try:
            return tuple(json.loads(store.get(self.blobs[DETAILS]))) if DETAILS in self.blobs else ()
        except MissingBlobError:
            return ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a step is handed.

    `previous` is what the same step yielded the last time for this image; it may save work (unchanged ciphertext is
    copied) and must never change the result.
    """

    image: str
    inputs: Mapping[str, Value]
    options: OptionsView
    world: World
    native: Callable[[], SourceImage]
    base: Callable[[], SourceImage]
    fspf_key: Callable[[], bytes] = dataclasses.field(repr=False)
    signer: Callable[[], Signer]
    previous: Outputs | None = None
    meter: Meter
    told: list[str] = dataclasses.field(default_factory=list)

    def progress(self, count: int, total: int | None = None) -> None:
        """Say that `count` bytes more were worked on, of `total` in all where that is known. Cheap: call it once a chunk."""
        self.meter.progress(count, total)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure of the summary, such as "bytes encrypted" or "files copied from before"."""
        self.meter.count(what, number)

    def layer_delivered(self, diff_id: str, size: int, *, reused: bool) -> None:
        """Say that a layer of the finished image is where it was to go; `reused` where it was there already."""
        self.world.events.emit(
            LayerDelivered(image=self.image, step=self.meter.step, diff_id=diff_id, size=size, reused=reused)
        )

    def warn(self, message: str) -> None:
        """Tell the user something that does not stop the build."""
        self.world.events.emit(Warned(image=self.image, message=message))

    def note(self, message: str) -> None:
        """Tell the user a fact."""
        self.world.events.emit(Noted(image=self.image, message=message))

    def detail(self, message: str) -> None:
        """Tell the user who asked for details, also when the step is cached; no secret may be in it."""
        self.told.append(message)
        self.world.events.emit(Detail(image=self.image, message=message))

    def load(self, name: str) -> Any:
        """The JSON in a blob input."""
        return json.loads(self.world.store.get(self.blob(name)))

    def fact(self, name: str) -> Json:
        """An input that is a fact."""
        value = self.inputs[name]
        assert not isinstance(value, Digest), name
        return value

    def text(self, name: str) -> str:
        """An input that is a string fact."""
        value = self.fact(name)
        assert isinstance(value, str), name
        return value

    def number(self, name: str) -> int:
        """An input that is a whole number."""
        value = self.inputs[name]
        assert isinstance(value, int), name
        return value

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """An input that is a list of pairs of strings."""
        value = self.inputs[name]
        assert isinstance(value, list), name
        return [(str(first), str(second)) for first, second in value]  # type: ignore[misc, str-unpack]

    def blob(self, name: str) -> Digest:
        """An input that is a blob of the store."""
        value = self.inputs[name]
        assert isinstance(value, Digest), name
        return value


class Step(Struct, frozen=True, kw_only=True):
    """One node of the graph.

    `inputs` maps an input's name to `STEP.OUTPUT`, or to `external.NAME` for what the build finds outside: identities of
    images, the runtime's digest. A step with an `effect` changes the world (deliver, upload): its outputs are
    checked, not only its key. `whole` names what a heavy step has in memory at once, of its inputs or of what it yielded the
    last time: trees, with an object a file (see `working_set`). It is not part of any key.
    """

    name: str
    version: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    reads: frozenset[str] = frozenset()
    secret: bool = False
    effect: bool = False
    whole: frozenset[str] = frozenset()

    @property
    def public(self) -> bool:
        """Whether what it yields may go to a shared cache: nothing secret, and nothing that is so on this machine only."""
        return not (self.secret or self.effect)

    @property
    def run(self) -> Callable[[Context], Outputs]:
        """What the step does: `run` of its module."""
        return import_module(f"sconify_tasks.steps.{self.name}").run  # type: ignore[no-any-return]

    @property
    def holds(self) -> Callable[[Context, Outputs], bool]:
        """Of a step with an effect, whether what the record says is still so: the function of its name in `effects`."""
        return getattr(import_module("sconify_tasks.effects"), self.name)  # type: ignore[no-any-return]

    def upstream(self) -> frozenset[str]:
        """Names of the steps whose outputs this one takes."""
        return frozenset(source.partition(".")[0] for source in self.inputs.values()) - {"external"}
