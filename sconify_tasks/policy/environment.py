"""The environment that a service gets from its session: the native image's, then what --env adds."""

from __future__ import annotations

from collections.abc import Iterable

from sconify_tasks.errors import UsageError

LD_LIBRARY_PATH = "/lib:/usr/lib:/usr/local/lib:"


def service_environment(
    native: Iterable[str],
    extra: Iterable[str] = (),
    *,
    copy_native: bool = True,
    generate_ld_library_path: bool = True,
) -> dict[str, str]:
    """Read `NAME=VALUE` entries; a later one wins. An entry without `=` has the empty value; values may hold newlines.

    LD_LIBRARY_PATH is generated, and stands first, where neither the image nor --env sets it.
    """
    found: dict[str, str] = {}
    for entry in native if copy_native else ():
        _add(found, entry, "the native image's environment", "leave it out with --disable-copy-envvars")
    for entry in extra:
        _add(found, entry, "--env", "write --env=NAME=VALUE")
    if generate_ld_library_path and "LD_LIBRARY_PATH" not in found:
        return {"LD_LIBRARY_PATH": LD_LIBRARY_PATH, **found}
    return found


def _add(found: dict[str, str], entry: str, where: str, hint: str) -> None:
    name, _, value = entry.partition("=")
    if not name:
        raise UsageError(f"{where} has an entry without a name", hint=hint)
    if "\0" in entry:
        raise UsageError(f"{where}: the variable {name.split(chr(0))[0][:60]!r} has a NUL character", hint=hint)
    found[name] = value
