"""What editors and readers get from the option table: the JSON Schema of sconify.yaml, and the table of docs/options.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sconify_tasks.command_line import describe
from sconify_tasks.option_checks import NOT_BUILT
from sconify_tasks.option_table import GROUPS, OPTIONS, Option

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?"
_BEGIN, _END = "<!-- options: begin -->", "<!-- options: end -->"
MAX_EPOCH = 999_999_999
_NULL = {"type": "null"}  # the table's default, whatever is inherited


def project_schema() -> dict[str, Any]:
    """Return the schema of a project file (draft 2020-12). What it refuses, the loader refuses too."""
    return {
        "$schema": DIALECT,
        "title": "sconify.yaml",
        "description": "The images that `doit sconify` makes confidential; keys are spelled like the options of sconify_image.",
        "type": "object",
        "additionalProperties": False,
        "required": ["version"],
        "anyOf": [{"required": ["images"]}, {"required": ["include"]}],
        "dependentRequired": {"key-epoch": ["project"]},
        "properties": {**_root_properties(), **_image_properties()},
        "$defs": {
            "options": {"type": "object", "additionalProperties": False, "properties": _options()},
            "extending": {"type": "object", "additionalProperties": False, "properties": {"extends": _EXTENDS, **_options()}},
        },
    }


_EXTENDS = {"type": "string", "description": "name of a template, which this goes over"}


def _root_properties() -> dict[str, Any]:
    pattern = {"type": "string", "pattern": "^[^/]"}
    return {
        "version": {"const": 1, "description": "version of this file's format"},
        "project": {
            "type": "string",
            "pattern": f"^{NAME_PATTERN}$",
            "description": "id of the project; keys are derived from it, so it stays when folders are renamed; "
            "a file that another one includes has none",
        },
        "key-epoch": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_EPOCH,
            "description": "raise it to encrypt everything under new keys",
        },
        "include": {
            "anyOf": [pattern, {"type": "array", "items": pattern}, {"type": "null"}],
            "description": "further project files, as patterns below this folder: services/*/sconify.yaml",
        },
    }


def _image_properties() -> dict[str, Any]:
    def either(name: str) -> dict[str, Any]:
        return {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}

    names = {"pattern": f"^{NAME_PATTERN}$"}
    return {
        "defaults": {**either("options"), "description": "options for every image that does not say otherwise"},
        "templates": {
            "type": ["object", "null"],
            "propertyNames": names,
            "additionalProperties": either("extending"),
            "description": "named options, which images and other templates extend",
        },
        "images": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": names,
            "additionalProperties": either("extending"),
            "description": "the images, each under a name of its own",
        },
    }


def _options() -> dict[str, Any]:
    found = {option.name: _property(option) for option in OPTIONS if option.yaml}
    for option in OPTIONS:
        if option.yaml and option.repeat:
            found[f"{option.name}+"] = _added(option)
    return found


def _added(option: Option) -> dict[str, Any]:
    items = _or_variable(option.kind.schema)
    return {
        "anyOf": [items, {"type": "array", "items": items}],
        "description": f"added to the inherited {option.name}",
    }


def _or_variable(value: Mapping[str, Any]) -> dict[str, Any]:
    """Text with a `$` in it is known only when variables were put in."""
    if value.get("type") == "string" and set(value) <= {"type", "minLength"}:
        return dict(value)
    return {"anyOf": [dict(value), {"type": "string", "pattern": "[$]"}]}


def _property(option: Option) -> dict[str, Any]:
    value = _or_variable(option.kind.schema)
    if option.repeat:
        value = {"anyOf": [value, {"type": "array", "items": value}, _NULL]}
    else:
        value = {"anyOf": [*value["anyOf"], _NULL]} if set(value) == {"anyOf"} else {"anyOf": [value, _NULL]}
    found: dict[str, Any] = {**value, "description": describe(option)}
    if option.initial not in (None, (), False):
        found["default"] = option.initial
    return found


def option_tables() -> str:
    """Return the tables of docs/options.md, one a group, in Markdown."""
    return "\n".join(_table(group) for group in GROUPS)


def write(docs: Path) -> None:
    """Bring docs/options.md and docs/sconify.schema.json up to date."""
    page = docs / "options.md"
    page.write_text(with_tables(page.read_text()))
    (docs / "sconify.schema.json").write_text(schema_text())


def schema_text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(project_schema(), indent=2) + "\n"


def with_tables(page: str) -> str:
    """Put today's tables between the two marks of the page."""
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{option_tables()}\n{_END}{after}"


def _table(group: str) -> str:
    rows = [_row(option) for option in OPTIONS if option.group == group]
    return "\n".join(
        [f"### {group.capitalize().replace('Scone', 'SCONE')}", "", "| option | meaning |", "|---|---|", *rows, ""]
    )


def _row(option: Option) -> str:
    names = [f"-{option.short}"] if option.short else []
    names.append(f"--{option.name}" + (f"={option.metavar}" if option.metavar else ""))
    names += [f"--{alias}" for alias in option.aliases]
    notes = [f"formerly {', '.join(f'`--{name}`' for name in option.former)}"] if option.former else []
    if option.name in NOT_BUILT:
        notes.append("**not built yet: an error**")
    if not option.yaml:
        notes.append("not in sconify.yaml")
    text = describe(option) + (f" — {'; '.join(notes)}" if notes else "")
    return "| " + ", ".join(f"`{name}`" for name in names).replace("|", "\\|") + " | " + text.replace("|", "\\|") + " |"
