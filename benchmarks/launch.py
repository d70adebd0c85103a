"""Run one command and write what it took, as JSON, to a file: `python -I -S launch.py USAGE COMMAND...`.

A process of its own, and a small one: on Linux the peak memory that `wait4` gives for a command starts at the size its
parent had when it forked. Started from a driver of 300 MB, nothing would ever seem to need less.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> int:
    usage_path, command = sys.argv[1], sys.argv[2:]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    with open(usage_path, "w", encoding="utf-8") as out:  # noqa: PTH123 -- pathlib would double the memory of this process
        json.dump(
            {
                "user": usage.ru_utime,
                "system": usage.ru_stime,
                "wall": wall,
                "peak_rss_kb": usage.ru_maxrss,
                "exit_code": os.waitstatus_to_exitcode(status),
            },
            out,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
