# ruff: noqa: T201, PTH123, SIM115 - as users write scripts
"""Started by `python -m module`, from a virtual environment or not."""

import json
import sys

try:
    from installed import ANSWER
except ImportError:
    ANSWER = None
version, prefix = sys.version.split()[0].rpartition(".")[0], sys.prefix
print(json.dumps({"secret": open("/app/secret.txt").read().strip(), "installed": ANSWER, "in": prefix, "version": version}))
