"""Runs a command and writes its seconds, processor seconds, peak memory and exit code as JSON.

A process of its own: what Linux reports as a child's peak starts at that of the process it was
forked from, and this one is small.

python -m tests.bench.peak OUT.json COMMAND...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run it; the output of the command goes where this process's goes."""
    out, *command = sys.argv[1:]
    start = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    found = {
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "code": child.returncode,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
