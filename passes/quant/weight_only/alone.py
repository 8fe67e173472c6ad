"""Single layers whose weight alone is stored in codes, in a model that is int8 otherwise.

Their inputs are rounded as they come, a block of a row at a time, in ONNX Runtime's MatMulNBits:
what a range of a whole tensor ruins keeps its numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.grid import fitted
from onnxslim.passes.quant.weight_only.layers import WeightLayer, find_layers
from onnxslim.passes.quant.weight_only.nbits import NBITS
from onnxslim.passes.quant.weight_only.put import put_layer
from onnxslim.pipeline.base import Layer
from onnxslim.targets import Target

BITS, BLOCK = 8, 32


def writes_alone(target: Target) -> bool:
    """Whether the target's own operators may be written, of which one takes codes."""
    return bool(target.own) and (target.schemes is None or "weight" in target.schemes)


def possible_alone(model: Model, names: Collection[str]) -> frozenset[str]:
    """Of some nodes (`first_output`), those that `write_alone` can write."""
    return frozenset(first_output(layer.node) for layer in _layers(model, names))


def write_alone(editor: Editor, names: Collection[str]) -> list[Layer]:
    """Store the weights of MatMul and Gemm (`first_output`) as the nearest codes, in place."""
    done: list[Layer] = []
    for layer in _layers(editor.model, names) if names else ():
        rows = layer.rows()
        grid = fitted(rows, BITS, layer.block)
        codes = grid.codes(rows).astype(np.uint8)
        scope, hint = editor.scope_of(layer.held), str(layer.held.name)
        row = Layer(ir.label(layer.node), ir.op(layer.node), _action(layer.block))
        put_layer(editor, NBITS, layer, NBITS.store(editor, scope, hint, codes, grid))
        done.append(row)
    return done


def _layers(model: Model, names: Collection[str]) -> Iterable[WeightLayer]:
    others = {first_output(node) for node in model.graph} - set(names)
    found, _ = find_layers(model, BLOCK, others)
    return [layer for layer in found if layer.node.graph is model.graph]


def _action(block: int) -> str:
    return f"weight-only, {BITS} bits in blocks of {block}, nearest rounding"
