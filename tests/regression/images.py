"""A Debian image with CPython's own tests in it, and two confidential ones made of it.

Debian's package has no maintainer scripts run here, so what Python would compile at installation is compiled in a build.
"""

from __future__ import annotations

from pathlib import Path

from main_job.conftest import Workshop
from parts.debian import make_rootfs
from parts.engine import Engine
from regression.modules import sqlite_tests

PROGRAM = Path(__file__).parent / "program" / "run_modules.py"
PACKAGES = "python3,libpython3.11-testsuite,python3-distutils,coreutils,dash,base-files,netbase,media-types"
USER = 1000
# The standard library is authenticated by default, as what the Python service needs; or encrypted, as the user's own files.
PROTECTIONS: dict[str, tuple[str, ...]] = {"authenticated": (), "encrypted": ("--dir=/usr/lib/python3.11",)}

_USERS = f"""\
RUN printf 'root:x:0:0:root:/root:/bin/sh\\nuser:x:{USER}:{USER}::/tmp:/bin/sh\\nnobody:x:65534:65534::/:/bin/sh\\n' >/etc/passwd
RUN printf 'root:x:0:\\nuser:x:{USER}:\\nnogroup:x:65534:\\n' >/etc/group
"""


def base_image(workshop: Workshop, engine: Engine) -> str:
    """Debian with Python and users."""

    def make() -> str:
        rootfs = engine.import_rootfs(
            make_rootfs("bookworm-python-tests", PACKAGES), changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin"]
        )
        return _kept(engine, engine.build(f"FROM {rootfs}\n{_USERS}"))

    return workshop.once("regression-base", make)


def native_image(workshop: Workshop, engine: Engine) -> str:
    """The base, with the standard library compiled but for the tests, and the program that runs them."""
    base = base_image(workshop, engine)
    dockerfile = f"""\
FROM {base}
RUN python3 -m compileall -q -j 2 -x '/(test_|bad|lib2to3|idlelib|encodings/|tkinter)' /usr/lib/python3.11
ADD test_sqlite3 /usr/lib/python3.11/test/test_sqlite3
ADD run_modules.py /regression/run_modules.py
ENV LANG=C.UTF-8
CMD ["python3", "/regression/run_modules.py"]
"""
    files = {"run_modules.py": PROGRAM.read_bytes()} | {f"test_sqlite3/{name}": data for name, data in sqlite_tests().items()}
    return workshop.once("regression-native", lambda: _kept(engine, engine.build(dockerfile, files)))


def shielded_image(workshop: Workshop, engine: Engine, protection: str) -> str:
    """The native image, sconified, with the standard library protected in one of two ways."""
    native, base = native_image(workshop, engine), base_image(workshop, engine)

    def make() -> str:
        image = engine.name(f"regression-{protection}")
        built = workshop.sconify(
            f"--from=docker:{native}",
            f"--to=docker:{image}",
            f"--base=docker:{base}",
            "--binary=/usr/bin/python3",
            "--dir=/regression",
            "--allow-debug-mode",
            *PROTECTIONS[protection],
        )
        assert built.status == 0, built.stderr
        return _kept(engine, image)

    return workshop.once(f"regression-{protection}", make)


def _kept(engine: Engine, name: str) -> str:
    """Leave the removal to the last worker, who finds the name in the workshop."""
    engine.made.remove(name)
    return name
