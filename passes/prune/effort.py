"""How many samples a step can afford: counted in multiply-accumulates, so that runs repeat."""

from __future__ import annotations

TRIALS = 1.2e12  # multiply-accumulates: about a quarter of a minute of two cores
REFIT = 2.5e12


def affordable(budget: float, macs: float, least: int, most: int) -> int:
    """Samples, each of which costs so many multiply-accumulates, within bounds."""
    return max(least, min(most, int(budget / max(macs, 1.0))))
