"""How much memory a stretch of the run needed, as the operating system counts it."""

from __future__ import annotations

import sys
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # Linux, proc(5): writing 5 resets the peak of the resident set


def reset_peak() -> None:
    """Start a new peak where the system can (Linux); elsewhere the peak is since the start."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return


def peak_mb() -> float | None:
    """Peak resident memory of the process since `reset_peak`, in MB; None where unknown."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return _peak_since_start()
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks[0] / 1024 if peaks else _peak_since_start()


def _peak_since_start() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
