"""Single layers whose weight alone is stored in codes, in a model that is int8 otherwise.

Their inputs are rounded as they come, a block of a row at a time, in ONNX Runtime's MatMulNBits:
what a range of a whole tensor ruins keeps its numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.decibels import rows_db
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weight_only.layers import WeightLayer, find_layers
from onnxslim.passes.quant.weight_only.nbits import NBITS
from onnxslim.passes.quant.weight_only.put import put_layer
from onnxslim.passes.quant.weight_only.refine import fit_codes
from onnxslim.pipeline.base import Layer
from onnxslim.targets import Target

BITS, FEW, BLOCK = 8, 4, 32


def writes_alone(target: Target) -> bool:
    """Whether the target's own operators may be written, of which one takes codes."""
    return bool(target.own) and (target.schemes is None or "weight" in target.schemes)


def possible_alone(model: Model, names: Collection[str]) -> frozenset[str]:
    """Of some nodes (`first_output`), those that `write_alone` can write."""
    return frozenset(first_output(layer.node) for layer in _layers(model, names))


def write_alone(
    editor: Editor,
    names: Collection[str],
    coarse: Collection[str] = (),
    facts: Facts | None = None,
) -> list[Layer]:
    """Store the weights of MatMul and Gemm (`first_output`) as codes of 8 bits, in place.

    Those in `coarse` have 4 bits, fitted to the second moments of the inputs as far as `facts`
    knows them; all others are the nearest.
    """
    done: list[Layer] = []
    for layer in _layers(editor.model, names) if names else ():
        bits = FEW if first_output(layer.node) in coarse else BITS
        codes, grid, how = _rounded(layer, bits, facts)
        scope, hint = editor.scope_of(layer.held), str(layer.held.name)
        action = f"weight-only, {bits} bits in blocks of {layer.block}, {how} rounding"
        row = Layer(ir.label(layer.node), ir.op(layer.node), action)
        put_layer(editor, NBITS, layer, NBITS.store(editor, scope, hint, codes, grid))
        done.append(row)
    return done


def few_bits_db(model: Model, names: Collection[str], facts: Facts) -> dict[str, float]:
    """Signal to noise in dB of a layer's output with codes of 4 bits, by `first_output`; without
    second moments its inputs count as independent and alike."""
    found: dict[str, float] = {}
    for layer in _layers(model, names):
        rows = layer.rows()
        codes, grid, _ = _rounded(layer, FEW, facts)
        moments = facts.moments(layer.tap)
        second = np.eye(layer.inputs) if moments is None else moments.second[0]
        found[first_output(layer.node)] = rows_db(rows, grid.values(codes), second)
    return found


def _rounded(layer: WeightLayer, bits: int, facts: Facts | None) -> tuple[Array, Grid, str]:
    """Codes [out, d], uint8, their grid, and how they were found; few bits are fitted once."""
    rows = layer.rows()
    moments = facts.moments(layer.tap) if facts is not None and bits < BITS else None
    if facts is None or moments is None:
        grid = fitted(rows, bits, layer.block)
        return grid.codes(rows).astype(np.uint8), grid, "nearest"
    name = first_output(layer.node)
    places = (name, "codes"), (name, "scale"), (name, "zero")
    codes, scale, zero = map(facts.memo.get, places)
    if codes is None or scale is None or zero is None:
        made, grid = fit_codes(rows, bits, layer.block, moments.second[0], moments.n)
        codes, scale, zero = made.astype(np.uint8), grid.scale, grid.zero
        facts.memo.update(zip(places, (codes, scale, zero), strict=True))
    return codes, Grid(scale, zero, bits, layer.block), "second-order"


def _layers(model: Model, names: Collection[str]) -> Iterable[WeightLayer]:
    others = {first_output(node) for node in model.graph} - set(names)
    found, _ = find_layers(model, BLOCK, others)
    return [layer for layer in found if layer.node.graph is model.graph]
