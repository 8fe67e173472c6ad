"""Pairs that are written already get a first factor that gives outputs of the layers.

A second factor is fitted again as a whole, and only then are those of its outputs taken out that
the first one can give: the product stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.lowrank.emit import Pair, emit
from onnxslim.passes.lowrank.pivot import shared
from onnxslim.passes.lowrank.schemes import Geometry, Scheme


def pivot_in_place(
    editor: Editor, model: Model, outputs: Sequence[str], shape: Geometry, scheme: Scheme
) -> None:
    """Pivot the pairs that make these values from one first factor, which is then multiplied from
    the left: H' V' = H V."""
    makers = {str(v.name): node for node in ir.nodes(model) for v in node.outputs}
    layers = [_second(makers[name]) for name in outputs]
    maker = layers[0].input.producer()
    first = None if maker is None else linear(maker)
    if not isinstance(first, Linear):
        raise ValueError(f"{outputs[0]!r} is not made by a pair")
    seconds = [layer.matrix()[0].astype(np.float64) for layer in layers]
    norms = [1 / max(float(np.linalg.norm(second)), 1e-300) for second in seconds]
    given, moved, known = shared(first.matrix()[0].astype(np.float64), seconds, norms)
    weight = editor.unshare(first.node, first.weight_index)
    editor.replace_initializer(weight, first.from_matrix(given[None]))
    for layer, second, direct in zip(layers, moved, known, strict=True):
        shift = np.zeros(len(second))
        pair = Pair(scheme, len(given), given[None], second[None, :, None, :], shift, direct=direct)
        emit(editor, layer, shape, pair, first.node.outputs[0])


def _second(node: Node) -> Linear:
    """The second factor, from it or the Add of a constant after it."""
    values = [value.producer() for value in node.inputs if value is not None]
    for made in (node, *(producer for producer in values if producer is not None)):
        found = linear(made)
        if isinstance(found, Linear):
            return found
    raise ValueError(f"{ir.label(node)} is no second factor")
