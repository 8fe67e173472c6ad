"""What the curves of `prune,quant` and of `quant` alone show, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PRUNED, ALONE = "prune,quant", "quant"
DEFAULT = "simplify,quant"
"""`quant` alone as it is without options: the others of its curve keep more in float."""
_INTRO = """# prune,quant beside quant

Written by `python -m tests.bench.prune.curves`, with the picture. Metrics are those of evaluation
samples that no compile has seen. *Apart* is the metric less that of `simplify,quant` on the same
samples, with the standard error of that difference (jackknife over 20 runs of neighbours).
*Latency* is that of one sample on one thread over FP32's, in turns, with its 99 % interval; *beside
quant* the same over that of `simplify,quant`, in the same race. `goal=60` lets `quant` keep as much
in float as its `float_share` allows.
"""
_HEAD = ("passes", "metric", "apart", "SQNR dB", "latency", "beside quant")


@dataclass(frozen=True)
class Spot:
    """One point of a curve; `latency` is over FP32's on one thread, with its 99 % `interval`. Of
    what is held against `quant` alone, `beside` is the latency over that one's, and `apart` the
    metric less that one's, with its standard `error`."""

    model: str
    curve: str
    passes: str
    metric: float
    fp32: float
    sqnr_db: float
    latency: float
    fp32_ms: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    beside: float = 1.0
    apart: float = 0.0
    error: float = 0.0


def fastest(spots: Sequence[Spot], errors: float = 0.0) -> Spot | None:
    """The fastest `prune,quant` that is faster than `quant` alone and no less accurate, by more
    than so many standard errors of the difference."""
    good = [
        spot
        for spot in spots
        if spot.curve == PRUNED and spot.beside < 1 and spot.apart >= -errors * spot.error
    ]
    return min(good, key=lambda spot: spot.beside, default=None)


def findings(spots: Sequence[Spot]) -> list[str]:
    """A sentence on what is no less accurate than `quant` alone, and one on what is within a
    standard error."""
    alone = next((spot for spot in spots if spot.passes == DEFAULT), None)
    if alone is None:
        return []
    base = f"`{DEFAULT}` has {alone.metric:.4f} at {_time(alone)}"
    return [
        f"{base}. {_told('At least as accurate', fastest(spots))}",
        _told("No worse by more than a standard error", fastest(spots, 1.0)),
    ]


def _told(what: str, spot: Spot | None) -> str:
    if spot is None:
        return f"{what} and faster: none of the points."
    return (
        f"{what} and fastest: `{spot.passes}`, {spot.metric:.4f} at {_time(spot)}, "
        f"{1 / spot.beside:.2f} times as fast."
    )


def _time(spot: Spot) -> str:
    return f"{spot.latency * spot.fp32_ms:.3f} ms, {spot.latency:.3f} of FP32's"


def markdown(spots: Sequence[Spot], titles: Mapping[str, str], about: Mapping[str, str]) -> str:
    """What it shows and a table of every network."""
    lines = [_INTRO]
    for name in dict.fromkeys(spot.model for spot in spots):
        own = [spot for spot in spots if spot.model == name]
        lines += [f"## {titles[name]}, FP32 {own[0].fp32:.4f}", "", *findings(own), ""]
        lines += ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
        lines += [_line(spot) for spot in own] + [""]
    lines += ["Measured with " + ", ".join(f"{k} {v}" for k, v in about.items()) + ".", ""]
    return "\n".join(lines)


def _line(spot: Spot) -> str:
    low, high = spot.interval
    cells = (
        f"`{spot.passes}`",
        f"{spot.metric:.4f}",
        f"{spot.apart:+.4f} ± {spot.error:.4f}",
        f"{spot.sqnr_db:.1f}",
        f"{spot.latency:.3f} ({low:.3f} to {high:.3f})",
        f"{spot.beside:.3f}",
    )
    return "| " + " | ".join(cells) + " |"
