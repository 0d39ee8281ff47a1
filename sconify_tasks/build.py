"""Carries one image through its steps: keys, look-ups, runs, records. What runs when is the caller's business.

A step is looked up under the key made of its inputs' *outputs*: an upstream step that ran and gave the same output stops
the wave there (early cutoff).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sconify_cache.digest import Digest
from sconify_cache.explain import diff
from sconify_cache.folder import store_error
from sconify_cache.keys import Action, facts_digest, secret_id
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.events import Detail, StepExplained, StepFailed, StepFinished, StepStarted
from sconify_tasks.image.opened import OpenedSource
from sconify_tasks.meter import Meter
from sconify_tasks.options import Options, is_secret
from sconify_tasks.sgx.signer import Signer
from sconify_tasks.step import Context, Json, Outputs, Step, Value
from sconify_tasks.world import World

if TYPE_CHECKING:
    from sconify_tasks.explain import Before


class Miss(Struct, frozen=True, kw_only=True):
    """A step that must run, and what changed since it last did."""

    step: Step
    why: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Build:
    """One image. Safe for one thread per step; a step starts only after its upstream steps are settled."""

    name: str
    options: Options
    world: World
    steps: tuple[Step, ...]
    externals: Mapping[str, Callable[[], Json]]
    native: OpenedSource
    base: OpenedSource
    fspf_key: Callable[[], bytes] = field(repr=False)
    signer: Callable[[], Signer]
    settled: dict[str, Outputs] = field(default_factory=dict)
    _found: dict[str, Json] = field(default_factory=dict)
    _ids: dict[str, tuple[Json, str]] = field(default_factory=dict)
    _actions: dict[str, tuple[Action, Digest]] = field(default_factory=dict)
    _latest: dict[str, Record | None] = field(default_factory=dict)
    _before: Before | None = None
    _mending: threading.RLock = field(default_factory=threading.RLock)

    def plan(self) -> tuple[Miss, ...]:
        """Settle what the cache answers; return the steps that must or may run, in topological order.

        May be called again: what was settled is asked for again in the store, not in the places that images go to.
        """
        misses: list[Miss] = []
        first = self._looks_back()
        for name in ("native", "base", "signer"):
            self.value(f"external.{name}")  # what is missing is better missed now than after half of the work
        for step in self.steps:
            if step.name in self.settled and self._there(self.settled[step.name].blobs.values()):
                continue
            self.settled.pop(step.name, None)
            waits = sorted(name for name in step.upstream() if name not in self.settled)
            if waits:
                misses.append(Miss(step=step, why=(f"waits for {', '.join(waits)}",)))
            elif not self.settle(step):
                misses.append(Miss(step=step, why=self.reasons(step)))
            elif first:
                self._explain(step, "cached")
        return tuple(misses)

    def settle(self, step: Step) -> bool:
        """Take the step's outputs from the action cache; False where it has none that are whole and still hold."""
        record = self._recall(step)
        if record is None:
            return False
        outputs = Outputs(blobs=record.outputs, facts=record.facts)
        if step.effect and not self._holds(step, outputs):
            return False
        self.world.actions.remember(self.scope, record)
        self._latest.pop(step.name, None)
        self.settled[step.name] = outputs
        if self.world.verbose:
            for message in outputs.details(self.world.store):
                self.world.events.emit(Detail(image=self.name, message=message))
        return True

    def cut_off(self, step: Step) -> bool:
        """Settle a step whose inputs turned out as before, if they did: nothing runs, and the stream is told."""
        if not self.settle(step):
            return False
        self._explain(step, "cut-off", ("what ran before it gave what it gave before",))
        self.world.events.emit(StepFinished(image=self.name, step=step.name, cached=True, seconds=0.0))
        self._completed()
        return True

    def execute(self, step: Step) -> None:
        """Settle the step, by running it if need be. Raises SconifyError after saying so on the stream."""
        try:
            cached, begun, counts = self._settled_or_run(step)
        except (SconifyError, OSError) as error:
            failure = error if isinstance(error, SconifyError) else self._disk_failure(error)
            self.world.events.emit(StepFailed(image=self.name, step=step.name, message=str(failure)))
            raise failure from error.__cause__ if failure is error else error
        seconds = 0.0 if cached else time.monotonic() - begun
        self.world.events.emit(StepFinished(image=self.name, step=step.name, cached=cached, seconds=seconds, counts=counts))
        self._completed()

    def _settled_or_run(self, step: Step) -> tuple[bool, float, Mapping[str, int]]:
        """Whether it was there, when its run began, and what the run counted."""
        begun = time.monotonic()
        if step.name in self.settled:
            return True, begun, {}
        with self.world.flights.alone(self._action_and_key(step)[1]):
            # Another image, or another build, may have made it meanwhile.
            return (True, begun, {}) if self.settle(step) else (False, begun, self._run_and_record(step))

    def _run_and_record(self, step: Step) -> Mapping[str, int]:
        """Run the step for its first time under this key; return what it counted."""
        if self._before is not None:
            from sconify_tasks.explain import reasons_for

            self._explain(step, "run", reasons_for(self, step, self._before))
        why = "; ".join(self.reasons(step)[:3])
        self.world.events.emit(StepStarted(image=self.name, step=step.name, why=why))
        with self._admitted(step):
            outputs, counts = self._run(step)
        self._record(step, outputs)
        return counts

    def _admitted(self, step: Step) -> AbstractContextManager[None]:
        """Wait until there is memory for a heavy step."""
        if not step.whole:
            return nullcontext()
        from sconify_tasks.working_set import working_set

        return self.world.memory.admitted(working_set(step, self.context(step)))

    def action(self, step: Step) -> Action:
        """What the step would do now: its key, and the components that make it."""
        return self._action_and_key(step)[0]

    def holds(self, step: Step) -> bool:
        """Whether what a settled step did outside is still so."""
        return self._holds(step, self.settled[step.name])

    def external(self, name: str) -> Json:
        """What the build took from outside under this name."""
        return self.value(f"external.{name}")

    def reasons(self, step: Step) -> tuple[str, ...]:
        """What changed since the step last ran for this image; a first run says so."""
        latest = self._latest_of(step)
        if latest is None:
            return ("never run",)
        return diff(latest.components, self.action(step).components) or ("what it made is gone or was changed",)

    def forget(self) -> None:
        """Forget what was settled and found: what the image is made from is about to be made anew."""
        self._looks_back()
        self.close()
        self.settled.clear()
        self._found.clear()
        self._latest.clear()

    def value(self, source: str) -> Value:
        """What `STEP.OUTPUT` or `external.NAME` is in this build. The step must be settled."""
        step, _, output = source.partition(".")
        if step == "external":
            if output not in self._found:
                self._found[output] = self.externals[output]()
            return self._found[output]
        return self.settled[step][output]

    def value_id(self, source: str, value: Value) -> str:
        """Name a value of `source` as action keys do: by its digest, or by a keyed one where it is secret."""
        upstream = source.partition(".")[0]
        # An identity covers the protected files: from an unkeyed one their content could be guessed.
        if source == "external.native" or any(step.secret for step in self.steps if step.name == upstream):
            return "keyed:" + secret_id(self.world.keys.component_key(), value)
        return value if isinstance(value, Digest) else facts_digest(value)

    def known_components(self, step: Step, *, unknown: Collection[str] = ()) -> Mapping[str, Json]:
        """The components of the step's key, of its inputs those that are outside or settled; without `unknown` sources."""
        known = {"external", *self.settled}
        inputs = {
            name: source for name, source in step.inputs.items() if source.partition(".")[0] in known and source not in unknown
        }
        return self.action(replace(step, inputs=inputs)).components

    def is_offered(self, step: Step) -> bool:
        """Settle the step by what the shared cache has of it, and copy nothing of that. Its inputs must be settled."""
        shared = self.world.shared
        record = shared.offered(self._action_and_key(step)[1]) if shared is not None and step.public else None
        if record is not None:
            self.settled[step.name] = Outputs(blobs=record.outputs, facts=record.facts)
        return record is not None

    def record_holds(self, step: Step, record: Record) -> bool:
        """Of a step with an effect, whether what a record of it says is still so."""
        return self._holds(step, Outputs(blobs=record.outputs, facts=record.facts))

    def context(self, step: Step, *, remembers: bool = True) -> Context:
        """What the step would be handed. Its inputs must be settled. What it yielded before is known if it `remembers`."""
        latest = self._latest_of(step) if remembers else None
        # What another version of the step yielded may mean something else.
        of_this = latest is not None and latest.components.get("version") == step.version
        previous = Outputs(blobs=latest.outputs, facts=latest.facts) if latest is not None and of_this else None
        return Context(
            image=self.name,
            inputs={name: self.value(source) for name, source in step.inputs.items()},
            options=self.options.view(step.reads),
            world=self.world,
            native=self.native,
            base=self.base,
            fspf_key=self.fspf_key,
            signer=self.signer,
            previous=previous,
            meter=Meter(image=self.name, step=step.name, emit=self.world.events.emit),
        )

    def close(self) -> None:
        """Let go of the images that were opened."""
        self.native.close()
        self.base.close()

    @property
    def scope(self) -> str:
        """Where the last records of this image are filed: project and TO, not the image's place in a file."""
        return f"{self.world.keys.project}\0{self.options['to']}"

    def _looks_back(self) -> bool:
        """Whether the build is to be explained and nothing was said of it yet: then what it was made with is noted."""
        if not self.world.explain or self._before is not None:
            return False
        from sconify_tasks.explain import Before

        self._before = Before.of(self)
        return True

    def _explain(self, step: Step, state: str, reasons: tuple[str, ...] = ()) -> None:
        if self._before is not None:
            self.world.events.emit(StepExplained(image=self.name, step=step.name, state=state, reasons=reasons))

    def _completed(self) -> None:
        """Once the last step is settled, keep what the image was made with, for the next build's explanation."""
        with self._mending:
            if len(self.settled) == len(self.steps):
                from sconify_tasks.surroundings import remember

                with suppress(SconifyError, OSError):  # the build is done: what explains the next one must not fail it
                    remember(self)

    def _disk_failure(self, error: OSError) -> SconifyError:
        """Put what the system refused into words. A write that failed names no file: steps write to the store's scratch."""
        place = error.filename if isinstance(error.filename, str) else str(self.world.environment.cache)
        return store_error(error, Path(place))

    def _recall(self, step: Step) -> Record | None:
        """The record of what the step would do, with all of its blobs; of a public step perhaps another machine's."""
        key = self._action_and_key(step)[1]
        record = self.world.actions.lookup(key)
        if record is not None and self._there(record.outputs.values()):
            return record
        shared = None if self.world.read_only or not step.public else self.world.shared
        return None if shared is None else shared.recall(key)

    def _there(self, digests: Iterable[Digest]) -> bool:
        return all(self.world.store.has(digest) for digest in digests)

    def _holds(self, step: Step, outputs: Outputs) -> bool:
        try:
            return step.holds(self.context(step, remembers=False), outputs)
        except MissingBlobError:
            return False  # an input is damaged: running the step has it made again

    def _run(self, step: Step) -> tuple[Outputs, Mapping[str, int]]:
        """Run a step. A blob of an earlier step that turns out to be gone or damaged is made again, once."""
        mended: set[str] = set()
        while True:
            context = self.context(step)
            try:
                outputs = step.run(context)
            except MissingBlobError as error:
                maker = self._maker(error.digest)
                if maker is None or maker.name in mended:
                    raise
                mended.add(maker.name)
                self._mend(maker, error.digest)
            else:
                context.meter.finish()
                assert step.secret or not context.told, f"{step.name} is public: it may not name anything of the native image"
                return outputs.with_details(context.told, self.world.store), dict(context.meter.counts)

    def _maker(self, digest: Digest) -> Step | None:
        made = (step for step in self.steps if step.name in self.settled)
        return next((step for step in made if digest in self.settled[step.name].blobs.values()), None)

    def _mend(self, step: Step, digest: Digest) -> None:
        """Run a settled step again for a blob. Equal inputs give equal bytes: what others took from it stays right."""
        with self._mending:
            if self.world.store.has(digest):
                return  # another thread was faster
            self.world.events.emit(StepStarted(image=self.name, step=step.name, why="what it made is gone or damaged"))
            begun = time.monotonic()
            outputs, counts = self._run(step)
            self._record(step, outputs)
            seconds = time.monotonic() - begun
            self.world.events.emit(StepFinished(image=self.name, step=step.name, cached=False, seconds=seconds, counts=counts))

    def _record(self, step: Step, outputs: Outputs) -> None:
        action, key = self._action_and_key(step)
        record = Record(
            key=key,
            step=step.name,
            outputs=outputs.blobs,
            facts=outputs.facts,
            components=action.components,
            secret=not step.public,
        )
        self.world.actions.record(record, scope=self.scope)
        if self.world.shared is not None and step.public:
            self.world.shared.publish(record)
        self._latest.pop(step.name, None)
        self.settled[step.name] = outputs

    def _action_and_key(self, step: Step) -> tuple[Action, Digest]:
        """`action` and its key, made once for what goes in: several look-ups of a step ask."""
        inputs = {name: self._input_id(source) for name, source in step.inputs.items()}
        known = self._actions.get(step.name)
        if known is None or known[0].inputs != inputs:
            view = self.options.view(step.reads)
            options = {name: self._option_id(name, view[name]) for name in sorted(step.reads)}
            action = Action(step=step.name, version=step.version, inputs=inputs, options=options)
            known = self._actions[step.name] = (action, action.key)
        return known

    def _latest_of(self, step: Step) -> Record | None:
        """What the image used last for a step, read once until the step is settled anew."""
        if step.name not in self._latest:
            self._latest[step.name] = self.world.actions.latest(self.scope, step.name)
        return self._latest[step.name]

    def _input_id(self, source: str) -> str:
        """`value_id` of an input, made once a value: every look-up of a step asks for it."""
        value = self.value(source)
        known = self._ids.get(source)
        if known is None or known[0] is not value:
            known = self._ids[source] = (value, self.value_id(source, value))
        return known[1]

    def _option_id(self, name: str, value: Json) -> Json:
        """Values of secret options enter keys and records only as keyed digests: a record must not allow guessing."""
        if is_secret(name) and value not in (None, "", ()):
            return "keyed:" + secret_id(self.world.keys.component_key(), value)
        return value
