"""Runs a command and writes its seconds, peak memory and exit code as JSON.

A process of its own: what Linux reports as a child's peak starts at that of the process it was
forked from, and this one is small. The peak counts mapped files; anonymous memory, which does not,
is sampled every 10 ms (proc(5), RssAnon) and is None where the system does not tell it.

python -m tests.bench.peak OUT.json COMMAND...
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

_EVERY = 0.01  # seconds
_ANONYMOUS = re.compile(r"RssAnon:\s+(\d+) kB")


class Sampler(threading.Thread):
    """The most anonymous memory that a process was seen with, while it runs."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{process}/status")
        self.ended = threading.Event()
        self.peak_kb: int | None = None

    def run(self) -> None:
        """Look until it has ended."""
        while not self.ended.wait(_EVERY):
            try:
                found = _ANONYMOUS.search(self._status.read_text())
            except OSError:
                return
            if found is not None:
                self.peak_kb = max(self.peak_kb or 0, int(found[1]))


def main() -> None:
    """Run it; the output of the command goes where this process's goes."""
    out, *command = sys.argv[1:]
    start = time.perf_counter()
    child = subprocess.Popen(command)
    sampler = Sampler(child.pid)
    sampler.start()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    sampler.ended.set()
    sampler.join()
    found = {
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "anonymous_mb": None if sampler.peak_kb is None else sampler.peak_kb / 1024,
        "code": child.returncode,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
