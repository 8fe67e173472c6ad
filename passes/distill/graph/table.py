"""Every operator that torch computes here: name as `ir.op` gives it -> function of a Call."""

from __future__ import annotations

from collections.abc import Mapping

from onnxslim.passes.distill.graph.call import Function
from onnxslim.passes.distill.graph.ops import (
    creation,
    elementwise,
    layers,
    movement,
    norms,
    pooling,
    quantization,
    reductions,
    resize,
)

OPS: Mapping[str, Function] = {
    **elementwise.OPS,
    **layers.OPS,
    **pooling.OPS,
    **norms.OPS,
    **reductions.OPS,
    **movement.OPS,
    **creation.OPS,
    **resize.OPS,
    **quantization.OPS,
}
