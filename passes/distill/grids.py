"""Quantized constants as floats and back: what a DequantizeLinear makes of its codes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model, Node, TensorProtocol, Value


@dataclass(frozen=True)
class Grid:
    """The values that a quantized constant can take: (code - zero) * step, code by code.

    `step` is float64 and `zero`, `low` and `high` are float64, all of the shape of the codes.
    Codes stay within the bits that they use: 4-bit codes that lie in bytes keep 4 bits.
    """

    codes: Array
    step: Array
    zero: Array
    low: Array  # least code - zero
    high: Array

    def values(self) -> Array:
        """What the codes stand for, float64."""
        return np.multiply(self.codes.astype(np.float64) - self.zero, self.step)

    def nearest(self, values: Array) -> Array:
        """The codes next to values, in the dtype of the codes."""
        centred = np.clip(np.rint(values / self.step), self.low, self.high)
        return np.asarray((centred + self.zero).astype(np.int64).astype(self.codes.dtype))

    def scaled(self, scale: Array, axis: int, block: int) -> Grid:
        """The same codes with another scale."""
        step = spread(scale, self.codes.shape, axis, block).astype(np.float64)
        return replace(self, step=step)

    @staticmethod
    def of(codes: Array, step: Array, zero: Array, tensor: TensorProtocol | None) -> Grid | None:
        """The grid of codes with a step and a zero point each, or such that can be broadcast.

        None where `tensor`, which holds the codes, is not of integers, or a step is not positive.
        """
        limits = _limits(tensor)
        if limits is None or not codes.size or not np.all(step > 0):
            return None
        step, shift = (np.broadcast_to(a.astype(np.float64), codes.shape) for a in (step, zero))
        low, high = reach(codes.astype(np.float64) - shift)
        ends = np.maximum(limits[0] - shift, low), np.minimum(limits[1] - shift, high)
        return Grid(codes, step, shift, *ends)


def grid_of(node: Node) -> Grid | None:
    """The grid of a DequantizeLinear of constants; None where it is none, or uses float codes."""
    if ir.op(node) != "DequantizeLinear":
        return None
    source = codes_of(node)
    codes, scale = ir.array(source), ir.array(node.inputs[1])
    if codes is None or scale is None:
        return None
    zero = ir.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    axis, block = ir.attribute(node, "axis", 1), ir.attribute(node, "block_size", 0)
    step = spread(scale, codes.shape, axis, block)
    shift = np.zeros(1) if zero is None else spread(zero, codes.shape, axis, block)
    return Grid.of(codes, step, shift, ir.constant(source))


def codes_of(node: Node) -> Value | None:
    """The value that holds the codes of a DequantizeLinear: what it reads, or what a Cast before
    it reads (4-bit codes lie in int4 and are computed with in int8)."""
    value = node.inputs[0]
    cast = None if value is None else value.producer()
    if cast is not None and ir.op(cast) == "Cast" and len(list(value.uses() if value else ())) == 1:
        value = cast.inputs[0]
    return value


def spread(scale: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point, one for all, per entry of an axis or per block, as of `shape`."""
    if scale.ndim == 0 or scale.size == 1:
        return np.broadcast_to(scale.reshape(()), shape)
    axis %= len(shape)
    if block:
        repeated = np.repeat(scale, block, axis=axis)
        return np.take(repeated, np.arange(shape[axis]), axis=axis)
    return np.broadcast_to(
        scale.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
    )


def reach(centred: Array) -> tuple[float, float]:
    """The least range of whole bits that holds codes less their zero point; symmetric where the
    lowest code of two's complement is not used."""
    bits = 2
    while centred.min() < -(2 ** (bits - 1)) or centred.max() > 2 ** (bits - 1) - 1:
        bits += 1
    low = -(2.0 ** (bits - 1))
    return (low if centred.min() == low else low + 1), 2.0 ** (bits - 1) - 1


def _limits(tensor: ir.TensorProtocol | None) -> tuple[int, int] | None:
    """The least and the greatest number of an integer type."""
    if tensor is None or tensor.dtype.is_floating_point():
        return None
    bits = round(tensor.dtype.itemsize * 8)
    signed = not tensor.dtype.name.startswith("U")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def floated(model: Model) -> tuple[Model, dict[str, Grid]]:
    """A copy in which quantized constants are floats, and the grids by the floats' names.

    The float of a DequantizeLinear has the name of its output; what several nodes read stays.
    """
    copy, grids = ir.snapshot(model), dict[str, Grid]()
    editor = Editor(copy)
    for node in [n for n in copy.graph if ir.op(n) == "DequantizeLinear"]:
        grid, made = grid_of(node), node.outputs[0]
        uses = [(use.node, use.idx) for use in made.uses()]
        if grid is None or len(uses) != 1 or made.is_graph_output():
            continue
        own = editor.initializer(
            copy.graph, f"{made.name}_values", grid.values().astype(np.float32)
        )
        editor.rewire(uses, own)
        name = str(made.name)
        editor.remove_dead()
        own.name = name
        grids[name] = grid
    return copy, grids


def written_back(model: Model, copy: Model, grids: dict[str, Grid]) -> None:
    """Give the model the codes of the copy's floats, and the floats that it shares with the copy.

    Raises:
        KeyError: the copy has constants that the model lacks.
    """
    editor = Editor(model)
    own = dict(model.graph.initializers)
    made = {str(v.name): node for node in model.graph for v in node.outputs}
    for name, value in copy.graph.initializers.items():
        content = ir.array(value)
        assert content is not None
        if name in grids:
            codes = codes_of(made[name])
            assert codes is not None
            nearest = grids[name].nearest(content.astype(np.float64))
            if not np.array_equal(nearest, grids[name].codes):
                editor.replace_initializer(codes, nearest)
        elif value.const_value is not own[name].const_value:
            editor.replace_initializer(own[name], content)
