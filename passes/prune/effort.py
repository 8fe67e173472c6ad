"""How many samples a step can afford: counted in multiply-accumulates, so that runs repeat."""

from __future__ import annotations

TRIALS = 1.2e12  # multiply-accumulates: about a quarter of a minute of two cores
REFIT = 2.5e12
REFITS = (60, 512)
"""Samples that layers are fitted again to, at least and at most. A model that affords no more than
the least has its layers fitted some at a time: one after the other each takes a run of its own."""


def affordable(budget: float, macs: float, least: int, most: int) -> int:
    """Samples, each of which costs so many multiply-accumulates, within bounds."""
    return max(least, min(most, int(budget / max(macs, 1.0))))
