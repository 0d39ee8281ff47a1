"""Which modules of CPython's regression tests are run.

`QUICK` runs always, a few at once. `FULL` adds what takes longer, with SCONIFY_TESTS_REGRESSION=full: one after another, since
some of these measure time. Debian's package has no test_sqlite3: it is taken from the Python that runs the tests, if that is 3.11, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from parts.need import missing

_QUICK = """
bufio crypt ctypes dbm dbm_dumb epoll fcntl file filecmp fileinput fileio genericpath glob grp gzip hashlib imp import
ioctl linecache mmap modulefinder openpty pathlib pipes pkgutil poll popen posix posixpath pty pwd resource select
shelve shutil site sqlite3 stat support sysconfig tempfile thread time trace unicode_file unicode_file_functions
urllib uuid xml_etree zipapp zipimport zlib
"""
_SLOW = """
asyncio asyncore atexit bz2 cmd_line cmd_line_script compileall concurrent_futures doctest eintr faulthandler fork1
httpservers importlib io json largefile logging lzma mailbox multiprocessing_fork multiprocessing_forkserver
multiprocessing_main_handling multiprocessing_spawn os pickle py_compile pydoc queue runpy selectors signal
socket socketserver ssl subprocess syslog tarfile threading tracemalloc wait3 wait4 zipfile
"""

QUICK = tuple(f"test_{name}" for name in _QUICK.split())
FULL = (*QUICK, *(f"test_{name}" for name in _SLOW.split()))


def sqlite_tests() -> dict[str, bytes]:
    """The files of test_sqlite3 by name, or the end of the test."""
    folder = Path(sys.base_prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "test" / "test_sqlite3"
    if sys.version_info[:2] != (3, 11) or not folder.is_dir():
        missing("CPython 3.11's own test_sqlite3, beside the Python that runs the tests")
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def wanted() -> tuple[tuple[str, ...], int]:
    """The modules of this test run, and how many run at once."""
    return (FULL, 1) if os.environ.get("SCONIFY_TESTS_REGRESSION") == "full" else (QUICK, 4)
