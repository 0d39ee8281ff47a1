"""What is said of simulated enclaves, apart from what makes them: a run that finds nothing to do says it too."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 3


def simulation_warning(images: Sequence[str]) -> str:
    """The warning for images whose sessions admit production enclaves only."""
    names = ", ".join(images[:_NAMED]) + (" …" if len(images) > _NAMED else "")
    return (
        f"the session of {names} admits production enclaves only, and this toolchain simulates: the image will "
        "be refused at its start (--allow-debug-mode admits simulation, which protects nothing from the host)"
    )
