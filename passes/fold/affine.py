"""Affine maps per channel folded into the layer before them: exact, in float64.

Conv | ConvTranspose | Gemm  +  BatchNormalization | Mul | Add | Sub | Div by constants
    -> the same layer with W' = W * a per output channel, b' = b * a + c
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor, Node, TensorProtocol, Value
from onnxslim.rewrite import Rewrite

_NORMAL = "onnxslim.normal"


@dataclass(frozen=True)
class Normal:
    """Mean and standard deviation per channel of a layer's output, each [C] or [1], float64, as
    its BatchNormalization states them. Data-free ranges are taken from it."""

    mean: Array
    deviation: Array


def normal_of(value: Value) -> Normal | None:
    """What a folded BatchNormalization said about a tensor; kept in `Value.meta`."""
    return cast("Normal | None", value.meta.get(_NORMAL))


@dataclass(frozen=True)
class ChannelAffine:
    """y = factor * x + offset; each [C], or of size one for all channels alike, float64."""

    x: Value
    factor: Array
    offset: Array
    normal: Normal | None = None  # of y, where it is known


def fold_into_producer(affine: ChannelAffine, node: Node) -> Rewrite | str:
    """The rewrite that lets the layer before `node` do its work, or the reason against."""
    layer = affine.x.producer()
    if layer is None or ir.op(layer) not in LAYERS:
        return "no Conv, ConvTranspose or Gemm before it"
    if affine.x.is_graph_output() or len(affine.x.uses()) != 1:
        return f"the output of {layer.name!r} is read elsewhere too"
    if layer.graph is not node.graph:
        return f"{layer.name!r} is in another graph"
    weight, bias = ir.constant(layer.inputs[1]), _bias(layer)
    if weight is None or bias is None:
        return f"the weight or bias of {layer.name!r} is computed, not a constant"
    if weight.dtype.numpy().kind != "f":
        return f"the weight of {layer.name!r} is {weight.dtype.numpy()}"
    if any(attribute.is_ref() for attribute in layer.attributes.values()):
        return f"{layer.name!r} takes attributes from its function"
    rows = LAYERS[ir.op(layer)](layer, tuple(int(size) for size in weight.shape.numpy()))
    if not {affine.factor.size, affine.offset.size} <= {1, rows.channels}:
        return f"it has {affine.factor.size} channels, {layer.name!r} {rows.channels}"
    return lambda editor: _replace(editor, layer, node, affine, rows, (weight, bias))


@dataclass(frozen=True)
class _Rows:
    """How a layer's weight is scaled by a vector of output channels."""

    channels: int
    scale: Callable[[Array, Array], Array]  # of the weight and the vector


def _conv(layer: Node, shape: tuple[int, ...]) -> _Rows:
    rows = (-1,) + (1,) * (len(shape) - 1)
    return _Rows(shape[0], lambda weight, a: weight * a.reshape(rows))


def _conv_transpose(layer: Node, shape: tuple[int, ...]) -> _Rows:
    """The weight is [C, M/group, *kernel]; channel c of group g makes channels g*M/group + m."""
    group = int(ir.attribute(layer, "group", 1))
    inputs, per_group = shape[:2]
    spatial = (1,) * (len(shape) - 2)

    def scale(weight: Array, a: Array) -> Array:
        per_row = np.broadcast_to(a, group * per_group).reshape(group, per_group)
        rows = np.repeat(per_row, inputs // group, axis=0)  # [C, M/group]
        scaled: Array = weight * rows.reshape(inputs, per_group, *spatial)
        return scaled

    return _Rows(group * per_group, scale)


def _gemm(layer: Node, shape: tuple[int, ...]) -> _Rows:
    transposed = bool(ir.attribute(layer, "transB", 0))
    channels = shape[0 if transposed else 1]
    return _Rows(channels, lambda weight, a: weight * (a.reshape(-1, 1) if transposed else a))


LAYERS: dict[str, Callable[[Node, tuple[int, ...]], _Rows]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
}


def _bias(layer: Node) -> Array | None:
    """The bias as added to the output, [C] or of size one, float64; None when it is computed."""
    given = layer.inputs[2] if len(layer.inputs) > 2 else None
    if given is None:
        return np.zeros(1)
    bias = ir.array(given)
    if bias is None or (bias.ndim > 1 and bias.shape[-1] != bias.size):
        return None
    return bias.astype(np.float64).ravel() * float(ir.attribute(layer, "beta", 1.0))


def _replace(
    editor: Editor,
    layer: Node,
    node: Node,
    affine: ChannelAffine,
    rows: _Rows,
    constants: tuple[TensorProtocol, Array],
) -> Sequence[Node]:
    """Only the bias is computed now; the weight when it is read or written.

    A weight in half precision is computed now too, to see whether it is beyond its range.
    """
    scope, (old, bias) = editor.scope_of(layer), constants
    factor, dtype = affine.factor.astype(np.float64), old.dtype.numpy()
    vector = finite(np.broadcast_to(bias * factor + affine.offset, rows.channels), dtype)
    if dtype.itemsize < 4:
        finite(rows.scale(old.numpy(), factor), dtype)
    weight = ir.lazy_tensor(
        lambda: rows.scale(old.numpy(), factor).astype(dtype), old.dtype, old.shape.numpy()
    )
    hint = str(layer.inputs[1].name) if layer.inputs[1] is not None else "weight"
    attributes = {a.name: a.value for a in layer.attributes.values() if a.name != "beta"}
    made = editor.node(
        layer.op_type,
        [
            layer.inputs[0],
            editor.initializer(scope, hint, weight),
            editor.initializer(scope, f"{hint}.bias", np.ascontiguousarray(vector)),
        ],
        outputs=[str(node.outputs[0].name)],
        attributes=attributes,
        name=layer.name or "",
        like=layer,
    )
    _note_normal(made.outputs[0], affine)
    editor.replace_node(node, [made], [made.outputs[0]])
    made.name, layer.name = layer.name, made.name  # the layer goes away, its name stays
    return [made, *(use.node for use in made.outputs[0].uses())]


def finite(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """The numbers in the type of the weight, as exact as those were.

    Raises:
        EditError: they are beyond the range of the type, or so small that it rounds them to
            multiples of its smallest number.
    """
    limits = np.finfo(str(dtype))
    magnitudes: Array = np.abs(array)
    largest = float(magnitudes.max(initial=0))
    if not largest <= float(limits.max):  # so for NaN
        raise EditError(f"the new weight would be beyond the range of {dtype}")
    if 0 < largest < float(limits.tiny):
        raise EditError(f"the new weight would be too small for {dtype}")
    made: Array = array.astype(dtype)
    return made


def _note_normal(made: Value, affine: ChannelAffine) -> None:
    """Keep what is known of the mean and deviation of the layer's output."""
    before = normal_of(affine.x)
    if affine.normal is not None:
        made.meta[_NORMAL] = affine.normal
    elif before is not None:
        made.meta[_NORMAL] = Normal(
            before.mean * affine.factor + affine.offset, before.deviation * np.abs(affine.factor)
        )
