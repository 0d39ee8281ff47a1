"""A process that has loaded the program, and becomes one run of it for every line it is sent (JSON, on stdin).

Started with faults.c preloaded where writes are to fail. The child is what the console script is, but for the time that the
imports cost: the first run says what it loaded, and the process loads that for all that follow.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

LONGEST = 120
MAINS = {"sconify_image": "sconify_dodo.cli", "doit": "doit.__main__"}


def become(order: dict[str, Any]) -> int:
    """The run; returns its exit code. One that hangs is ended."""
    signal.alarm(LONGEST)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["variables"])
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        opened = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.sched_setaffinity(0, order["cpus"])
    if order["library"]:
        arm(order)
    if order["seen"]:
        note_what_is_seen(order["seen"])
    sys.argv = order["words"]
    try:
        return int(import_module(MAINS[sys.argv[0]]).main() or 0)
    finally:
        if order["modules"]:
            Path(order["modules"]).write_text("\n".join(sys.modules))


def arm(order: dict[str, Any]) -> None:
    """Count writes from here on, and let one of them fail."""
    library = ctypes.CDLL(order["library"])
    library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, *[ctypes.c_int] * 4, ctypes.c_char_p]
    fault = [order[name] for name in ("at", "error", "stays", "signal", "to_writer")]
    library.fault_arm(order["below"].encode(), *fault, order["log"].encode())


def note_what_is_seen(path: str) -> None:
    """A line for every worker that this process forks, and for every project file that it opens."""
    file = open(path, "a", buffering=1)  # noqa: PTH123, SIM115 - for the rest of the process

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.fork":
            file.write("fork\n")
        elif event == "open" and str(arguments[0]).endswith("/sconify.yaml"):
            file.write("project\n")

    sys.addaudithook(look)


def serve() -> None:
    """Answer each order with how its run ended."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for the rest of the process
            sys.exit(become(order))
        _, status = os.waitpid(child, 0)
        if order["modules"]:
            for name in Path(order["modules"]).read_text().splitlines():
                with suppress(ImportError):
                    import_module(name)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    serve()
