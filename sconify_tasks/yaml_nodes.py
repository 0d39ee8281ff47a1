"""YAML from outside (project files, sessions) as nodes that know their line and keep what was written.

Safe by construction: only strings, lists and mappings come out; a scalar is the text that stands in the file, and the
reader of a key says whether it is a number or a flag. So `12e45…` stays a key, `0.3` a version and `no` a country.
Tags, duplicate keys, several documents, deep nesting and aliases that multiply are refused. Size is bounded by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_DEPTH = 32
_TOO_DEEP = f"nested deeper than {_MAX_DEPTH}"
_MAX_NODES = 200_000  # counted as if every alias were written out: consumers walk them all
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_TYPED = re.compile(
    r"true|True|TRUE|false|False|FALSE|0o[0-7]+|0x[0-9A-Fa-f]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
)
_INT = re.compile(r"[-+]?[0-9]{1,18}")


class Node(Struct, frozen=True, kw_only=True):
    """One value of a file called `name`, at `line` (from 1). `plain` scalars were written without quotes."""

    name: str
    line: int
    value: str | tuple[Node, ...] | Mapping[str, Node]
    plain: bool = False
    count: int = 1

    def error(self, message: str, *, hint: str = "") -> UsageError:
        """Make the error that points here."""
        return UsageError(f"{self.name}:{self.line}: {message}", hint=hint)

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here: `key:`, `~` or `null`."""
        return self.plain and self.value in _NULL

    @property
    def is_number_or_flag(self) -> bool:
        """Whether a reader of YAML 1.2 takes it for a number, true or false."""
        return self.plain and isinstance(self.value, str) and bool(_TYPED.fullmatch(self.value))

    def text(self, what: str) -> str:
        """Return a scalar as written; raise UsageError for a list, a mapping or nothing."""
        if not isinstance(self.value, str) or self.is_null:
            raise self.error(f"{what} must be text, not {self._kind()}")
        return self.value

    def mapping(self, what: str) -> Mapping[str, Node]:
        """Return a mapping; nothing is the empty one."""
        if self.is_null:
            return {}
        if not isinstance(self.value, Mapping):
            raise self.error(f"{what} must be a mapping, not {self._kind()}")
        return self.value

    def sequence(self, what: str) -> tuple[Node, ...]:
        """Return a list; nothing is the empty one."""
        if self.is_null:
            return ()
        if not isinstance(self.value, tuple):
            raise self.error(f"{what} must be a list, not {self._kind()}")
        return self.value

    def boolean(self, what: str) -> bool:
        """Return `true` or `false`, written without quotes."""
        if self.plain and self.value in _TRUE | _FALSE:
            return self.value in _TRUE
        raise self.error(f"{what} must be true or false, not {self._kind()}")

    def integer(self, what: str) -> int:
        """Return a decimal integer, written without quotes."""
        if self.plain and isinstance(self.value, str) and _INT.fullmatch(self.value):
            return int(self.value)
        raise self.error(f"{what} must be a whole number, not {self._kind()}")

    def data(self) -> Any:
        """Return the JSON-able value: YAML 1.2's null, true, false and decimal integers, else text, lists, dicts."""
        if isinstance(self.value, tuple):
            return [item.data() for item in self.value]
        if isinstance(self.value, Mapping):
            return {key: item.data() for key, item in self.value.items()}
        if not self.plain:
            return self.value
        if self.is_null:
            return None
        if self.value in _TRUE | _FALSE:
            return self.value in _TRUE
        return int(self.value) if _INT.fullmatch(self.value) else self.value

    def only(self, known: Iterable[str], what: str) -> Mapping[str, Node]:
        """Return a mapping that has no other keys than these; a stranger is an error with a suggestion."""
        names = tuple(known)
        found = self.mapping(what)
        for key, item in found.items():
            if key not in names:
                raise item.error(f"{what} has no key {key[:60]!r}", hint=suggestion(key, names))
        return found

    def _kind(self) -> str:
        if isinstance(self.value, str):
            return "empty" if self.is_null else repr(self.value[:60])
        return "a list" if isinstance(self.value, tuple) else "a mapping"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Say `did you mean X?`, or list what there is when nothing is near and the list is short."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word[:100], names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(names)}" if names and len(", ".join(names)) <= 120 else ""  # noqa: PLR2004 - one line


def load(text: str, *, name: str) -> Node:
    """Read exactly one YAML document. Raise UsageError naming `name:line`."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Events, not yaml.compose: it recurses as deep as the text nests, and the C one ends the process.
        events = yaml.parse(text, Loader=loader)
        return _Builder(name=name, events=events).document()
    except yaml.MarkedYAMLError as error:
        line = next((mark.line + 1 for mark in (error.problem_mark, error.context_mark) if mark is not None), 1)
        problem = f"{error.problem or error.context}"
        # libyaml reads ahead, and newer ones have a bound of their own, above ours.
        what = _TOO_DEEP if "maximum nesting depth" in problem else f"not YAML: {problem}"
        raise UsageError(f"{name}:{line}: {what}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise UsageError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None


class _Builder:
    """Builds nodes from one stream of events; lives for one document."""

    def __init__(self, *, name: str, events: Iterator[Any]) -> None:
        self._name = name
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def document(self) -> Node:
        import yaml

        root = Node(name=self._name, line=1, value="", plain=True)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "more than one YAML document")
                root = self._node(next(self._events), 0)
        return root

    def _node(self, event: Any, depth: int, line: int | None = None) -> Node:
        """Build the node that begins here. A value is reported at its key's `line`, also where it is an alias."""
        import yaml

        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event)
            node = node if line is None else replace(node, line=line)
        else:
            if event.tag is not None:
                raise self._error(event, f"the tag {event.tag[:60]!r} is not allowed")
            if depth > _MAX_DEPTH:
                raise self._error(event, _TOO_DEEP)
            node = self._scalar_or_collection(event, depth, line or event.start_mark.line + 1)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
        return node

    def _scalar_or_collection(self, event: Any, depth: int, line: int) -> Node:
        import yaml

        self._add(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            return Node(name=self._name, line=line, value=event.value, plain=bool(event.implicit[0]))
        if isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self._items(yaml.SequenceEndEvent, depth))
            return Node(name=self._name, line=line, value=items, count=1 + sum(item.count for item in items))
        pairs = self._pairs(depth)
        return Node(name=self._name, line=line, value=pairs, count=1 + sum(item.count for item in pairs.values()))

    def _items(self, end: type, depth: int) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> dict[str, Node]:
        import yaml

        pairs: dict[str, Node] = {}
        for event in self._events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self._error(event, "a key must be plain text")
            if event.value in pairs:
                raise self._error(event, f"the key {event.value[:60]!r} stands here a second time")
            pairs[event.value] = self._node(next(self._events), depth + 1, line)
        return pairs

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:  # unknown, or the alias is inside the very node that it names
            raise self._error(event, f"the alias *{event.anchor} has no anchor before it")
        self._add(event, node.count)
        return node

    def _add(self, event: Any, count: int) -> None:
        self._count += count
        if self._count > _MAX_NODES:
            raise self._error(event, f"more than {_MAX_NODES} values, aliases written out")

    def _error(self, event: Any, message: str) -> UsageError:
        return UsageError(f"{self._name}:{event.start_mark.line + 1}: {message}")
