"""How far the channels between two layers reached on samples, and how far they may on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnxslim.analyses.layer_ranges import LayerRanges
from onnxslim.analyses.tensor_stats import ChannelStats
from onnxslim.ir import Array, Model
from onnxslim.passes.quant.prepare.neighbours import Pair
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment

Seen = Mapping[str, ChannelStats]
"""Tensor -> what was seen of its channels."""


def look(model: Model, found: Iterable[Pair], env: Environment) -> Seen:
    """The channels of the outputs of the first layers of pairs.

    Costs one run of the samples. Raises RuntimeUnavailable.
    """
    names = (str(pair.first.node.outputs[0].name) for pair in found)
    request = LayerRanges(tensors=tuple(dict.fromkeys(names)))
    tensors = AnalysisManager(model, env).get(request).tensors.items()
    return {name: seen.channels for name, seen in tensors if seen.channels is not None}


def highest(seen: ChannelStats, slack: float) -> Array:
    """What other samples may reach, [C]: beyond the extreme by `slack` times its distance from the
    mean."""
    reached: Array = seen.max + slack * (seen.max - seen.mean)
    return reached


def lowest(seen: ChannelStats, slack: float) -> Array:
    """The same downwards, [C]."""
    reached: Array = seen.min - slack * (seen.mean - seen.min)
    return reached
