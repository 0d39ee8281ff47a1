"""Options as a project file writes them: what one mapping says, and how it goes over what is inherited.

`KEY: value` takes the inherited value's place, `KEY+: [items]` adds to an inherited list, `KEY: null` goes back to the
option table's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from sconify_tasks.errors import UsageError
from sconify_tasks.interpolation import Variables
from sconify_tasks.option_table import BY_NAME, Option
from sconify_tasks.option_types import Value
from sconify_tasks.yaml_nodes import Node, suggestion

ADD = "+"
_KEYS = tuple(option.name for option in BY_NAME.values() if option.yaml)
_KNOWN = frozenset(_KEYS)


class Layer(Struct, frozen=True, kw_only=True):
    """What one mapping of options says. Values are read and typed; names of files are absolute."""

    given: Mapping[str, Value] = field(default_factory=dict)
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reset: frozenset[str] = frozenset()

    def over(self, inherited: Mapping[str, Value]) -> dict[str, Value]:
        """Return the inherited values with these changes."""
        found = {**{name: value for name, value in inherited.items() if name not in self.reset}, **self.given}
        for name, items in self.added.items():
            before = found.get(name, BY_NAME[name].initial)
            assert isinstance(before, tuple), name
            found[name] = (*before, *items)
        return found


def read_options(node: Node, what: str, *, folder: Path, variables: Variables, but: frozenset[str] = frozenset()) -> Layer:
    """Read a mapping of options; keys in `but` are somebody else's. Raise UsageError naming file and line."""
    given: dict[str, Value] = {}
    added: dict[str, tuple[str, ...]] = {}
    reset: set[str] = set()
    for key, item in node.mapping(what).items():
        if key in but:
            continue
        name = key.removesuffix(ADD)
        if name not in _KNOWN or (key != name and not BY_NAME[name].repeat):
            raise _unknown(item, key, what)
        reader = _Reader(option=BY_NAME[name], what=f"{what}.{key}", folder=folder, variables=variables)
        if key != name:
            added[name] = reader.items(item)
        elif item.is_null and item.value:  # in words: `dir:` with nothing behind it may be a slip, and protects nothing
            reset.add(name)
        else:
            given[name] = reader.value(item)
    for name in added.keys() & (given.keys() | reset):
        key = name + ADD
        raise node.mapping(what)[key].error(f"{what} has both {name} and {key}", hint=f"write all of it as {name}")
    return Layer(given=given, added=added, reset=frozenset(reset))


def _unknown(node: Node, key: str, what: str) -> UsageError:
    if key.removesuffix(ADD) in _KNOWN:
        return node.error(f"{what}.{key[:60]}: only an option that may be repeated can be added to")
    if key in BY_NAME:
        return node.error(f"{what}: {key} belongs to the machine, not to a project", hint=f"give it as --{key}")
    hint = suggestion(key.removeprefix("--"), _KEYS) or "docs/options.md lists the options"
    return node.error(f"{what}: there is no option {key[:60]!r}", hint=hint)


class _Reader(Struct, frozen=True, kw_only=True):
    option: Option
    what: str
    folder: Path
    variables: Variables

    def value(self, node: Node) -> Value:
        if self.option.is_flag:
            text = self.variables.fill(node, self.what)
            return node.boolean(self.what) if text is None else self._flag(node, text)
        return self.items(node) if self.option.repeat else self._single(node)

    def items(self, node: Node) -> tuple[str, ...]:
        """A list; one value may stand without brackets."""
        items = (node,) if isinstance(node.value, str) else node.sequence(self.what)
        return tuple(str(self._single(item)) for item in items)

    def _single(self, node: Node) -> Value:
        kind, written = self.option.kind, node.text(self.what)
        if node.is_number_or_flag and not kind.bare:
            raise node.error(f"{self.what} must be text, and this is a number or a flag", hint="put it in quotes")
        filled = self.variables.fill(node, self.what)
        try:
            value = kind.value(written if filled is None else filled)
            return kind.relocate(str(value), self.folder) if kind.relocate else value
        except ValueError as reason:
            # As written: a value of the environment may be a secret.
            shown = "this value" if self.option.secret else repr(written[:80])
            raise node.error(f"{self.what}: {shown} is not allowed", hint=f"allowed: {reason}") from None

    def _flag(self, node: Node, text: str) -> bool:
        if text not in {"true", "false"}:
            raise node.error(f"{self.what}: {str(node.value)[:60]!r} must come to true or false")
        return text == "true"
