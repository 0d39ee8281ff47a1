"""`${NAME}` in the options of a project file: variables of the environment, put in after the YAML was read.

`${NAME}` is an error where NAME is not set, `${NAME:-TEXT}` is TEXT where it is not set or empty, `$$` is a dollar sign, and
`$$SCONE::…$$` (a secret of the session) stays as it is. Any other `$` is an error: a forgotten brace would go unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sconify_tasks.yaml_nodes import Node

# In TEXT, `}` ends it and `$` is left for later: nothing nests.
_TOKEN = re.compile(r"\$\$SCONE::.*?\$\$|\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}$]*))?\}|\$", re.DOTALL)
# What other keys are derived from has no business in an option.
_FORBIDDEN = frozenset({"SCONIFY_ROOT_KEY"})
_FORMS = "write ${NAME} or ${NAME:-default} for a variable of the environment, $$ for a dollar sign"


@dataclass(slots=True, kw_only=True)
class Variables:
    """The environment as a project file may see it. `read` holds what was asked for: its value, None where it is not set."""

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    read: dict[str, str | None] = field(default_factory=dict, repr=False)

    def fill(self, node: Node, what: str) -> str | None:
        """Return the scalar's text with variables put in, or None where it names none and holds no `$` at all.

        UsageError says which variable is missing, and never shows a value.
        """
        text = node.value
        if not isinstance(text, str) or "$" not in text:
            return None
        return _TOKEN.sub(lambda token: self._value(token, node, what), text)

    def _value(self, token: re.Match[str], node: Node, what: str) -> str:
        name, optional, default = token.groups()
        if token[0] == "$":
            raise node.error(f"{what}: a $ that begins no variable", hint=_FORMS)
        if name is None:
            return "$" if token[0] == "$$" else token[0]
        if name in _FORBIDDEN:
            raise node.error(f"{what}: {name} is a key and can't be part of an option")
        found = self.read[name] = self.given.get(name)
        if optional and not found:
            return str(default)
        if found is None:
            raise node.error(f"{what}: {name} is not set in the environment", hint=f"set it, or write ${{{name}:-default}}")
        return found
