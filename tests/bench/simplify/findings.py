"""What the records say: who leaves fewest nodes, who is fastest, what became slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.simplify.measure import is_slower
from tests.bench.simplify.store import Record
from tests.bench.simplify.tools import OURS, PEERS

EQUAL = 1e-4  # of the largest output: rounding of a few hundred layers in another order
LARGE_MB, PEAK = 100, 1.3  # a file much smaller than the interpreter says nothing of memory
_NONE: Record = {"failure": "not run"}
NEAR = 1.1  # who comes within 10 % of our count is compared in seconds


@dataclass(frozen=True)
class Finding:
    """One model and all that was measured on it; records by tool."""

    model: str
    file_mb: float
    original: Record
    results: dict[str, Record]
    race: dict[str, Record] = field(default_factory=dict[str, Record])
    latency: Record = field(default_factory=Record)

    def is_equal(self, tool: str) -> bool:
        """Whether a tool gave a model with the outputs of the original."""
        found = self.results.get(tool, {})
        return not found.get("failure", "not run") and found["difference"] <= EQUAL

    def nodes(self, tool: str) -> int:
        """What a tool leaves."""
        return int(self.results[tool]["nodes"])

    @property
    def best_peer(self) -> str | None:
        """The peer with the fewest nodes and equal outputs; the first of several."""
        equal = [peer for peer in PEERS if self.is_equal(peer)]
        return min(equal, key=self.nodes, default=None)

    @property
    def lead(self) -> int | None:
        """By how many nodes ours is below the best peer; None where ours has no equal result."""
        peer = self.best_peer
        if not self.is_equal(OURS):
            return None
        return (int(self.original["nodes"]) if peer is None else self.nodes(peer)) - self.nodes(
            OURS
        )

    @property
    def rivals(self) -> list[str]:
        """The peers that were timed beside ours and come near its count with equal outputs."""
        if not self.is_equal(OURS):
            return []
        most = self.nodes(OURS) * NEAR
        return [p for p in PEERS if p in self.race and self.is_equal(p) and self.nodes(p) <= most]

    @property
    def fastest_rival(self) -> str | None:
        """The one of `rivals` that takes the fewest seconds."""
        return min(self.rivals, key=lambda peer: float(self.race[peer]["seconds"]), default=None)

    @property
    def is_slower(self) -> bool:
        """Whether our result takes longer to run than the original."""
        return OURS in self.latency.get("ratios", {}) and is_slower(self.latency, OURS)

    @property
    def is_faster(self) -> bool:
        """Whether our result runs over 2 % faster, beyond the noise."""
        if OURS not in self.latency.get("ratios", {}):
            return False
        ratio, _, high = self.latency["ratios"][OURS]
        return bool(high < 0.98 and ratio < 0.98 - abs(self.latency["again"] - 1))


def summary(found: Sequence[Finding]) -> list[str]:
    """What is claimed, each with where it does not hold."""
    leads = {f.model: f.lead for f in found if f.lead is not None}
    behind = [f"{model} ({-lead} more)" for model, lead in leads.items() if lead < 0]
    raced = [f for f in found if f.race and OURS in f.race and f.fastest_rival]
    lost = [f for f in raced if _seconds(f, OURS) >= _seconds(f, f.fastest_rival or "")]
    timed = [f for f in found if OURS in f.latency.get("ratios", {})]
    slower, faster = [f for f in timed if f.is_slower], [f for f in timed if f.is_faster]
    equal = [f for f in found if f.is_equal(OURS)]
    worst = max(equal, key=lambda f: float(f.results[OURS]["difference"]), default=None)
    lines = [
        f"- **Outputs** of ours are the original's to {EQUAL:.0e} of their largest value on "
        f"{len(equal)} of {len(found)} models"
        + (
            f", the largest difference is {worst.results[OURS]['difference']:.0e} ({worst.model})"
            if worst
            else ""
        )
        + _but([f.model for f in found if not f.is_equal(OURS)]),
        f"- **Nodes**: ours has fewer than the best peer with equal outputs on "
        f"{sum(lead > 0 for lead in leads.values())}, as many on "
        f"{sum(lead == 0 for lead in leads.values())}, more on {len(behind)} of {len(found)} models"
        + _but(behind),
        f"- **Seconds**: ours is faster than every peer within 10 % of its count on "
        f"{len(raced) - len(lost)} of {len(raced)} models timed side by side"
        + _but([_duel(f) for f in lost]),
        f"- **Latency** in ONNX Runtime: over 2 % faster beyond noise on {len(faster)}, slower on "
        f"{len(slower)} of {len(timed)} models" + _but([_ratio(f) for f in slower]),
    ]
    if faster:
        lines.append(f"  Faster: {', '.join(_ratio(f) for f in faster)}.")
    lines += _memory(found)
    lines += [_broken(found, peer) for peer in PEERS]
    return [line for line in lines if line]


def _memory(found: Sequence[Finding]) -> list[str]:
    large = [f for f in found if f.file_mb > LARGE_MB and not f.race.get(OURS, _NONE)["failure"]]
    shares = {f.model: f.race[OURS]["peak_mb"] * 1.048576 / f.file_mb for f in large}
    if not shares:
        return []
    above = [f"{model} ({share:.2f})" for model, share in shares.items() if share > PEAK]
    return [
        f"- **Memory** of ours peaks at most at {PEAK} times the file on "
        f"{len(shares) - len(above)} of {len(shares)} models over {LARGE_MB} MB, the interpreter "
        "included" + _but(above)
    ]


def growth(scale: Mapping[str, Record]) -> str:
    """Seconds of ours on the chains, over those of the smaller one."""
    mine = {size: record for size, record in scale.get(OURS, {}).items() if size != "key"}
    if not mine:
        return ""
    took = ", ".join(
        f"{size} " + ("failed" if record["failure"] else f"{record['seconds']:.1f} s")
        for size, record in mine.items()
    )
    return f"- **Scale**: {took}."


def _seconds(finding: Finding, tool: str) -> float:
    return float(finding.race[tool]["seconds"])


def _duel(finding: Finding) -> str:
    rival = finding.fastest_rival or ""
    mine, theirs = _seconds(finding, OURS), _seconds(finding, rival)
    return f"{finding.model} ({mine:.2f} s, {rival} {theirs:.2f} s)"


def _ratio(finding: Finding) -> str:
    return f"{finding.model} ({finding.latency['ratios'][OURS][0]:.2f})"


def _but(names: Sequence[str]) -> str:
    return f". Not: {', '.join(names)}." if names else "."


def _broken(found: Sequence[Finding], peer: str) -> str:
    wrong = [f.model for f in found if f.results.get(peer) and not f.is_equal(peer)]
    return (
        f"- {peer} fails or changes outputs on {len(wrong)}: {', '.join(wrong)}." if wrong else ""
    )
