"""What the side-by-side says of one model: who is both faster and more accurate than whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.quant.tools import OURS
from tests.bench.simplify.store import Record

Speed = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """Records by label, and races by number of threads; the commit that ours is of."""

    model: str
    metric_name: str
    records: Mapping[str, Record]
    races: Mapping[int, Record]
    commit: str

    def speed(self, label: str, threads: int = 1) -> Speed | None:
        """FP32's time over this setting's, with its 99 % interval."""
        found = self.races.get(threads, {}).get("speeds", {}).get(label)
        return None if found is None else (found[0], found[1], found[2])

    def metric(self, label: str) -> float:
        """On the evaluation samples."""
        return float(self.records[label]["metric"])

    def beats(self, label: str, other: str, threads: int = 1) -> bool:
        """Whether a setting is more accurate, and faster beyond the noise of the race."""
        mine, theirs = self.speed(label, threads), self.speed(other, threads)
        if mine is None or theirs is None:
            return False
        return self.metric(label) > self.metric(other) and mine[1] > theirs[2]

    def better_than_ours(self, threads: int = 1) -> list[str]:
        """Settings that are both faster and more accurate than ours."""
        return [label for label in self.rivals if self.beats(label, OURS, threads)]

    def matched_by_ours(self, threads: int = 1) -> list[str]:
        """Settings that ours is as accurate as, or more, and faster than beyond the noise."""
        mine = self.speed(OURS, threads)
        found: list[str] = []
        for label in self.rivals:
            theirs = self.speed(label, threads)
            if mine is not None and theirs is not None and mine[1] > theirs[2]:
                found += [label] if self.metric(OURS) >= self.metric(label) else []
        return found

    def most_accurate(self) -> str | None:
        """The peer's setting with the best metric; of equals the fastest."""
        return max(self.rivals, key=lambda x: (self.metric(x), self._middle(x)), default=None)

    def fastest(self) -> str | None:
        """The peer's setting with the highest speed."""
        return max(self.rivals, key=self._middle, default=None)

    def _middle(self, label: str) -> float:
        found = self.speed(label)
        return 0.0 if found is None else found[0]

    @property
    def rivals(self) -> list[str]:
        """The settings of peers whose results were scored and timed."""
        return [
            label
            for label, record in self.records.items()
            if label != OURS and not record["failure"] and self.speed(label) is not None
        ]
