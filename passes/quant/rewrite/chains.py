"""What may follow a tensor without costing anything once it is quantized.

u -> Relu | Clip by constants -> v: a QuantizeLinear on v whose integers end where the Clip does
makes the same numbers from u. v -> Mul, Add, Sub, Div by single constants -> y: the integers of v
are also those of y, for a DequantizeLinear with another scale and zero point (`qparams.through`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.ir import Node, Value
from onnxslim.passes.fold.batchnorm import scalar_affine
from onnxslim.passes.quant.clipping import limits_of
from onnxslim.passes.quant.qparams import IDENTITY, Affine
from onnxslim.targets import StaticRule


@dataclass(frozen=True)
class Chain:
    """From `start`, through clipping to `at` (where Q reads) and on to `out` (what DQ gives)."""

    start: Value
    at: Value
    out: Value
    affine: Affine = IDENTITY
    bounds: tuple[float, float] = (-np.inf, np.inf)  # what the clipping leaves through
    nodes: tuple[Node, ...] = ()  # all nodes in between


def chain_from(start: Value, rules: Mapping[str, StaticRule], affine: bool = True) -> Chain:
    """The longest chain that starts here; its inner tensors are read by nothing else.

    Without `affine` it ends where Q reads: the DequantizeLinear has the same parameters.
    """
    chain = Chain(start, start, start)
    while (node := _only_reader(chain.at)) is not None:
        rule = rules.get(ir.op(node))
        bounds = limits_of(node) if rule is not None and rule.role == "absorbed" else None
        if bounds is None:
            break
        both = max(chain.bounds[0], bounds[0]), min(chain.bounds[1], bounds[1])
        out = node.outputs[0]
        chain = Chain(start, out, out, bounds=both, nodes=(*chain.nodes, node))
    while affine and (node := _only_reader(chain.out)) is not None:
        step = scalar_affine(node)
        if step is None or step[0] <= 0:
            break
        both_maps = Affine(*step).after(chain.affine)
        nodes = (*chain.nodes, node)
        chain = Chain(start, chain.at, node.outputs[0], both_maps, chain.bounds, nodes)
    return chain


def _only_reader(value: Value) -> Node | None:
    """The one node that reads a tensor, once, in the same graph; None for graph outputs."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    return node if node.graph is ir.graph_of(value) else None
