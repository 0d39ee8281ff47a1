"""A process that has loaded the program, and becomes one run of `sconify_image` for every line it is sent (JSON, on stdin).

Started with faults.c preloaded. The child is what the console script is, but for the time that the imports cost.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

PROGRAM = (
    "sconify_dodo.cli",
    "sconify_dodo.front",
    "sconify_dodo.tasks",
    "sconify_tasks.world",
    "diskcache",
    "cryptography.hazmat.primitives.ciphers.aead",
    "sconify_tasks.cas.embedded",
)


def become(order: dict[str, Any]) -> int:
    """The run; returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["variables"])
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        opened = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    if order["cpus"]:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: order["cpus"]]))
    library = ctypes.CDLL(order["library"])
    library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p]
    log = order["log"].encode()
    library.fault_arm(order["below"].encode(), order["at"], order["error"], order["stays"], order["kills"], log)
    sys.argv = order["words"]
    return int(import_module("sconify_dodo.cli").main())


def serve() -> None:
    """Answer each order with how its run ended."""
    for name in PROGRAM:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for the rest of the process
            sys.exit(become(json.loads(line)))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    serve()
