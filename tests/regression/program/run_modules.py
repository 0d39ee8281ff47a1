"""Runs modules of CPython's regression tests, each in a process of its own, and tells how each test ended.

Standard input: one JSON object, {"modules": [name...], "jobs": number, "patience": {name: seconds}}.
Standard output: one JSON line a module, {"module", "seconds", "status", "tests": {name: outcome}, "said"}. `said` is the end
of what it printed, unless it succeeded.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

# Nothing that needs a network, gigabytes, a screen, or minutes of a processor.
RESOURCES = "all,-network,-urlfetch,-largefile,-gui,-audio,-cpu"
SAID = 60_000


def main():
    order = json.load(sys.stdin)
    with ThreadPoolExecutor(order["jobs"]) as pool:
        for result in pool.map(lambda name: run(name, order["patience"][name]), order["modules"]):
            print(json.dumps(result), flush=True)  # noqa: T201


def run(module, patience):
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="regression-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [sys.executable, "-m", "test", "-u", RESOURCES, "-v", f"--junit-xml={folder}/report.xml", module]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, env={**os.environ, "TMPDIR": name},
                start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = "no end"
        report = folder / "report.xml"
        return {
            "module": module,
            "seconds": round(time.monotonic() - began, 1),
            "status": status,
            "tests": outcomes(report) if report.exists() else {},
            "said": "" if status == 0 else (folder / "said").read_text(errors="replace")[-SAID:],
        }


def outcomes(report):
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        found[case.get("name")] = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
    return found


main()
