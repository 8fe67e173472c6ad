"""What a runtime fuses and runs fast, as data. Passes read it; they hold no such rule themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from collections.abc import Mapping


@dataclass(frozen=True)
class Target:
    """One runtime on one kind of machine.

    `rank_multiple`: ranks and channels that dense fp32 kernels run fast.
    `static`: operator -> how it takes part in static int8 (see the target's own module).
    """

    name: str
    rank_multiple: int = 8
    static: Mapping[str, object] = field(default_factory=dict[str, object])
