"""How many samples a step can afford: counted in multiply-accumulates, so that runs repeat."""

from __future__ import annotations

_MACS = 2.5e12  # about half a minute of two cores


def affordable(macs: float, least: int, most: int) -> int:
    """Samples, each of which costs so many multiply-accumulates, within bounds."""
    return max(least, min(most, int(_MACS / max(macs, 1.0))))
