#!/usr/bin/env -S python3 -B
# ruff: noqa: EXE001, T201, PTH123, SIM115 - as users write scripts
import json
import sys

print(json.dumps({"secret": open("/app/secret.txt").read().strip(), "words": sys.argv, "cache": sys.dont_write_bytecode}))
