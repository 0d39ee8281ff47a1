"""Start one command, wait for it, and write what it took to a file. Small on purpose: no import of anything large.

Linux folds the peak of the process that forks into the peak of the one that is forked, so a large benchmark can't ask for
the memory of its own children. Usage: python -I -S launch.py RESULT COMMAND [ARGUMENT...]
"""

import os
import sys
import time


def main() -> int:
    """Return the command's exit code."""
    result, command = sys.argv[1], sys.argv[2:]
    begun = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - begun
    with open(result, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib alone would double this process
        file.write(f"{seconds} {used.ru_utime + used.ru_stime} {used.ru_maxrss * 1024}")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
