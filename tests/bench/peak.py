"""Runs a command and writes its seconds, peak memory and exit code as JSON.

A process of its own: what Linux reports as a child's peak starts at that of the process it was
forked from, and this one is small. A child may set its peak back, as this project does for each
pass, so that memory is sampled too, every 10 ms: resident memory, which counts mapped files, and
anonymous memory, which does not (proc(5), VmRSS and RssAnon; None where the system does not tell).

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
_FIELD = re.compile(r"(VmRSS|RssAnon):\s+(\d+) kB")


class Sampler(threading.Thread):
    """The most memory that a process was seen with, while it runs."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{process}/status")
        self.ended = threading.Event()
        self.peak_mb: dict[str, float] = {}

    def run(self) -> None:
        """Look until it has ended."""
        while not self.ended.wait(_EVERY):
            try:
                fields = _FIELD.findall(self._status.read_text())
            except OSError:
                return
            for name, size in fields:
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), int(size) / 1024)


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
        "peak_mb": max(usage.ru_maxrss / 1024, sampler.peak_mb.get("VmRSS", 0.0)),
        "anonymous_mb": sampler.peak_mb.get("RssAnon"),
        "code": child.returncode,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
