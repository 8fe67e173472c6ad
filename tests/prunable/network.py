"""What a small network is that pruning has to follow, and the kinds of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim.ir import Array, Model
from tests.quantizing import build

HEADS, QK, VO = "attention heads", "query and key dimensions", "value dimensions"
CHANNELS, HIDDEN, GROUPS = "channels", "hidden units", "convolution groups"


@dataclass(frozen=True)
class Network:
    """`groups` are the kinds and sizes that must be found, in any order."""

    body: str
    weights: Mapping[str, Sequence[int] | Array]
    groups: tuple[tuple[str, int], ...]
    opset: int = 17
    sizes: tuple[Mapping[str, int], ...] = field(default=({"N": 1}, {"N": 3}))

    def model(self) -> Model:
        """The model with random weights."""
        return build(self.body, self.weights, self.opset)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)
