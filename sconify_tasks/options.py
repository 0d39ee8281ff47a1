"""The options of one image as an immutable mapping, always complete, and the views that steps get of it.

Keys are the options' long names without dashes in front. Values are JSON-able: str, int, bool, None, tuple of str.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import BY_NAME, OPTIONS
from sconify_tasks.option_types import Value

_INITIAL: Mapping[str, Value] = {option.name: option.initial for option in OPTIONS}
SECRET_OPTIONS = frozenset(option.name for option in OPTIONS if option.secret)
_TRANSPORT = re.compile(r"(docker|oci|oci-archive|docker-archive|dir|registry):(?=.)")
_FOLDERS = ("oci:", "oci-archive:", "docker-archive:", "dir:")
_MAX_SEGMENT = 128


class UndeclaredOptionError(LookupError):
    """A step touched an option that it does not declare, or that does not exist: a mistake in the program.

    Not a KeyError: `Mapping.get` and `in` would swallow that, and the cache key would miss an option.
    """


@dataclass(frozen=True, slots=True)
class _Frozen(Mapping[str, Value]):
    _values: Mapping[str, Value]

    def __getitem__(self, name: str) -> Value:
        try:
            return self._values[name]
        except KeyError:
            raise UndeclaredOptionError(f"option {name!r} is not declared here") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        """Return a text option; "" where it was not given."""
        value = self[name]
        assert value is None or isinstance(value, str), name
        return value or ""

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a repeatable option's values."""
        value = self[name]
        assert isinstance(value, tuple), name
        return value

    def flag(self, name: str) -> bool:
        """Return a flag."""
        value = self[name]
        assert isinstance(value, bool), name
        return value

    def number(self, name: str) -> int:
        """Return a size, a level or another number that has a default."""
        value = self[name]
        assert isinstance(value, int), name
        return value


class OptionsView(_Frozen):
    """Exactly the options that a step declares."""

    __slots__ = ()


class Options(_Frozen):
    """Every option of one image: what was given, and defaults for the rest."""

    __slots__ = ()

    @classmethod
    def of(cls, given: Mapping[str, Value]) -> Options:
        """Complete these values. They are typed already; a name that is no option is a mistake in the program."""
        if unknown := given.keys() - BY_NAME.keys():
            raise UndeclaredOptionError(f"no such options: {', '.join(sorted(unknown))}")
        return cls(MappingProxyType({**_INITIAL, **given}))

    def but(self, given: Mapping[str, Value]) -> Options:
        """Return these options with some values replaced."""
        return Options.of({**self._values, **given})

    def given(self) -> dict[str, Value]:
        """Return what differs from the defaults."""
        return {name: value for name, value in self._values.items() if value != _INITIAL[name]}

    def view(self, names: Iterable[str]) -> OptionsView:
        """Return exactly these options; touching another one raises UndeclaredOptionError."""
        return OptionsView(MappingProxyType({name: self[name] for name in sorted(names)}))


def is_secret(name: str) -> bool:
    """Whether the option's value must not be guessable from a key or a record."""
    return name in SECRET_OPTIONS


def session_file(options: Options | OptionsView, resources: Path) -> Path:
    """Where the session's text is left: as `--session` says, else in the folder of the build resources."""
    return Path(options.text("session")) if options["session"] else resources / "session.yml"


def session_name(to: str) -> str:
    """Return the session's default name: TO with every character but letters, digits and `-` replaced by `-`."""
    if to.startswith(_FOLDERS):
        # Where a folder lies must not get into the image.
        to = to.rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9-]", "-", _TRANSPORT.sub("", to, count=1)).strip("-")
    if not 0 < len(name) <= _MAX_SEGMENT:
        raise UsageError(f"--to={to[:60]} gives no name for the session", hint="choose one with --name")
    return name
