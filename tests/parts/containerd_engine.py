"""An engine of the generation that keeps its images in containerd: Debian 13's (26.1), in a root file system of its own.

It runs under chroot in a mount namespace of its own, so that its mounts go with it, and in a network namespace of its own,
because `--bridge=none` takes away the docker0 that another engine of the machine uses.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parts.debian import make_rootfs
from parts.engine import PATIENCE, Engine, answering, used
from parts.need import find_tool, missing

_START = """\
set -e
cd {root}
mount --bind . .
cd {root}
for name in proc sys dev; do mkdir -p $name; mount --rbind /$name $name; done
exec chroot . /usr/sbin/dockerd -H unix:///run/d.sock --pidfile /run/d.pid --exec-root /run/docker \
    --iptables=false --ip6tables=false --bridge=none
"""


@contextmanager
def running_containerd_engine() -> Iterator[Engine]:
    """An engine with the containerd image store that answers, or the end of the test."""
    unshare = find_tool("unshare")
    if os.geteuid() != 0:
        missing("root, to start an engine for the tests")
    archive = make_rootfs("trixie-docker", "docker.io,ca-certificates", suite="trixie")
    # A short path: a socket's name has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cs", dir="/tmp", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        subprocess.run(["tar", "-xf", archive, "-C", root, "--exclude=./usr/share", "--exclude=./dev/*"], check=True)
        for name in ("bin", "sbin", "lib", "lib64"):  # base-files makes them in its maintainer script
            if not (root / name).exists():
                (root / name).symlink_to(f"usr/{name}")
        for name in ("run", "tmp", "var/lib/docker", "etc/docker"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "etc" / "docker" / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [unshare, "--mount", "--net", "--propagation=private", "sh", "-c", _START.format(root=shlex.quote(str(root)))],
                stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )  # fmt: skip
        host = f"unix://{root}/run/d.sock"
        try:
            yield from used(Engine(host, answering(host, process, root)))
        finally:
            process.terminate()
            process.wait(PATIENCE)
