"""Puts two nodes in the place of a linear layer; names of the layer's outputs stay.

Conv            -> Conv (no bias) + Conv
Gemm            -> Gemm (no C) + Gemm
MatMul          -> MatMul + MatMul
MatMul + Add(b) -> MatMul + MatMul + Add(b')    where only the Add reads it and b is constant
Pivoted, the second gives some outputs alone:
X               -> X + X + Concat(of both) + Gather(in order) + Add(b')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.lowrank.schemes import Geometry, Scheme


@dataclass(frozen=True)
class Pair:
    """The two factors of a layer in the terms of `svd`, and what the bias gains."""

    scheme: Scheme
    rank: int  # per group
    first: Array  # V, [groups, r, m]
    second: Array  # H, [groups, out, places, r]
    shift: Array  # (W - H V) m, [groups * out]
    inner: Pair | None = None  # the second factor cut again, as a layer of its own (Tucker)
    direct: Array | None = None  # [out]: the number of the first factor that an output is, or -1


def emit(
    editor: Editor, layer: Linear, shape: Geometry, pair: Pair, reduced: Value | None = None
) -> tuple[Node, ...]:
    """Replace the layer's node; the nodes that took its place, the first factor's at index 0.

    With `reduced`, what the first factor gives is there already, and only the second is made.

    Raises:
        EditError: the graph does not allow it; nothing was changed.
    """
    add = _absorber(layer) if pair.shift.any() else None
    make = _EMITTERS[layer.kind] if pair.direct is None else _pivoted
    nodes = make(editor, layer, shape, pair, add is not None)
    if reduced is not None:
        for node, index in list(nodes[0].outputs[0].uses()):
            node.replace_input_with(index, reduced)
        editor.discard(nodes[:1])
        nodes = nodes[1:]
    editor.replace_node(layer.node, nodes, [nodes[-1].outputs[0]])
    if add is not None:
        _absorb(editor, *add, pair.shift)
    if pair.inner is not None:
        nodes[1:2] = _emit_inner(editor, nodes[1], shape.inner(pair.rank), pair.inner)
    return tuple(nodes)


def emit_together(
    editor: Editor, layers: Sequence[Linear], shapes: Sequence[Geometry], pairs: Sequence[Pair]
) -> None:
    """Replace layers, in the order of the graph; those of a joint cut share one first factor.

    Raises EditError like `emit`.
    """
    reduced: Value | None = None
    for layer, shape, pair in zip(layers, shapes, pairs, strict=True):
        joint = pair.scheme.name == "joint"
        nodes = emit(editor, layer, shape, pair, reduced if joint else None)
        if joint and reduced is None:
            reduced = nodes[0].outputs[0]


def _emit_inner(editor: Editor, node: Node, shape: Geometry, pair: Pair) -> tuple[Node, ...]:
    """Replace the second factor by two."""
    second = linear(node)
    if isinstance(second, str):
        raise ValueError(f"{node.name!r}: {second}")
    return emit(editor, second, shape, pair)


def weights(layer: Linear, shape: Geometry, pair: Pair) -> tuple[Array, Array]:
    """The weights of the two nodes, in the layout and dtype of the layer's own."""
    tensor = ir.constant(layer.weight)
    dtype = np.dtype(np.float32 if tensor is None else tensor.dtype.numpy())
    if layer.kind != "conv":
        first, second = pair.first[0], pair.second[0, :, 0, :]
        if not layer.transposed:
            first, second = np.transpose(first), np.transpose(second)
    else:
        kernels = pair.scheme.kernels(shape)
        first = pair.first.reshape(-1, shape.channels, *kernels[0])
        swapped = np.swapaxes(pair.second, 2, 3)  # [groups, out, r, places]
        second = swapped.reshape(-1, pair.rank, *kernels[1])
    return np.ascontiguousarray(first, dtype), np.ascontiguousarray(second, dtype)


def _conv(editor: Editor, layer: Linear, shape: Geometry, pair: Pair, absorbed: bool) -> list[Node]:
    taken = pair.scheme.first
    rest = tuple(axis for axis in range(len(shape.kernel)) if axis not in taken)
    first, second = _weight_values(editor, layer, shape, pair)
    one = _node(
        editor,
        layer,
        "reduce",
        [layer.node.inputs[layer.input_index], first],
        _conv_attributes(layer, taken),
    )
    bias, left = _bias(editor, layer, pair)
    two = _node(
        editor, layer, "expand", [one.outputs[0], second, bias], _conv_attributes(layer, rest)
    )
    return [one, two, *_added(editor, layer, two, left)]


def _conv_attributes(layer: Linear, axes: tuple[int, ...]) -> dict[str, object]:
    """The layer's attributes on these axes of the kernel; one, or no padding, on the others."""
    window = layer.tap.window
    if window is None:
        raise ValueError(f"Conv {layer.node.name!r} without a window")
    rank = len(window.kernel)

    def on_axes(values: tuple[int, ...], other: int) -> list[int]:
        return [v if axis in axes else other for axis, v in enumerate(values)]

    found: dict[str, object] = {
        "kernel_shape": on_axes(window.kernel, 1),
        "strides": on_axes(window.strides, 1),
        "dilations": on_axes(window.dilations, 1),
        "group": layer.groups,
    }
    if window.auto_pad in ("NOTSET", ""):
        pads = on_axes(window.pads[:rank], 0) + on_axes(window.pads[rank:], 0)
        return {**found, "pads": pads}
    return {**found, "auto_pad": window.auto_pad}  # each axis is padded by itself


def _gemm(editor: Editor, layer: Linear, shape: Geometry, pair: Pair, absorbed: bool) -> list[Node]:
    first, second = _weight_values(editor, layer, shape, pair)
    layout = {"transB": int(layer.transposed)}
    turned = {"transA": 1} if ir.attribute(layer.node, "transA", 0) else {}
    one = _node(
        editor, layer, "reduce", [layer.node.inputs[layer.input_index], first], {**layout, **turned}
    )
    bias, left = _bias(editor, layer, pair)
    inputs = [one.outputs[0], second, bias]
    scaled = {"beta": layer.beta} if left is not None else {}
    two = _node(editor, layer, "expand", inputs, {**layout, **scaled})
    return [one, two, *_added(editor, layer, two, left)]


def _matmul(
    editor: Editor, layer: Linear, shape: Geometry, pair: Pair, absorbed: bool
) -> list[Node]:
    first, second = _weight_values(editor, layer, shape, pair)
    one = _node(editor, layer, "reduce", [layer.node.inputs[layer.input_index], first], {})
    two = _node(editor, layer, "expand", [one.outputs[0], second], {})
    return [one, two, *_added(editor, layer, two, None if absorbed else pair.shift)]


def can_pivot(layer: Linear) -> bool:
    """Whether a pivoted pair can take the layer's place: its bias is added at last, and what lies
    on the last axis of a tensor of any rank is put together only from opset 11 on."""
    scope = layer.node.graph
    opset = 11 if scope is None else scope.opset_imports.get("", 11)
    return layer.bias_vector() is not None and (layer.kind != "matmul" or opset >= 11)


def _pivoted(
    editor: Editor, layer: Linear, shape: Geometry, pair: Pair, absorbed: bool
) -> list[Node]:
    """Some outputs are those of the first factor, the others those of the second."""
    assert pair.direct is not None
    rest, order = np.flatnonzero(pair.direct < 0), pair.direct.copy()
    order[rest] = pair.rank + np.arange(len(rest))
    bare = replace(layer, bias=None)
    some = pair.second[:, rest] if len(rest) else pair.second[:, :1]
    plain = replace(pair, second=some, shift=np.zeros(some.shape[1]), direct=None)
    one, two = _EMITTERS[layer.kind](editor, bare, shape, plain, absorbed)
    nodes, whole = [one, two], one.outputs[0]
    axis = -1 if layer.kind == "matmul" else 1
    hint = str(layer.node.outputs[0].name)
    if len(rest):
        parts = [one.outputs[0], two.outputs[0]]
        nodes.append(_like(editor, layer, "Concat", parts, axis, f"{hint}_joined"))
        whole = nodes[-1].outputs[0]
    else:
        editor.discard([nodes.pop()])
    scope = ir.graph_of(layer.node.outputs[0])
    if scope is None:
        raise ValueError(f"{layer.node.name!r} is in no graph")
    index = editor.initializer(scope, f"{layer.weight.name}_order", order.astype(np.int64))
    nodes.append(_like(editor, layer, "Gather", [whole, index], axis, f"{hint}_ordered"))
    bias = layer.bias_vector()
    total = None if bias is None or absorbed else bias + pair.shift
    return [*nodes, *_added(editor, layer, nodes[-1], total)]


def _like(
    editor: Editor, layer: Linear, op_type: str, inputs: list[Value], axis: int, output: str
) -> Node:
    made = editor.node(
        op_type, inputs, outputs=[output], attributes={"axis": axis}, like=layer.node
    )
    if layer.weight.dtype is not None:
        made.outputs[0].dtype = layer.weight.dtype
    return made


_EMITTERS: dict[str, Callable[[Editor, Linear, Geometry, Pair, bool], list[Node]]] = {
    "conv": _conv,
    "gemm": _gemm,
    "matmul": _matmul,
}


def _weight_values(
    editor: Editor, layer: Linear, shape: Geometry, pair: Pair
) -> tuple[Value, Value]:
    scope = ir.graph_of(layer.node.outputs[0])
    if scope is None:
        raise ValueError(f"{layer.node.name!r} is in no graph")
    first, second = weights(layer, shape, pair)
    hint = str(layer.weight.name)
    return (
        editor.initializer(scope, f"{hint}_reduce", first),
        editor.initializer(scope, f"{hint}_expand", second),
    )


def _bias(editor: Editor, layer: Linear, pair: Pair) -> tuple[Value | None, Array | None]:
    """The second factor's bias, and what must be added to its output because a bias that is not
    one constant number per output cannot take it."""
    vector = layer.bias_vector()
    if vector is None:
        return layer.bias, pair.shift
    if layer.bias is None and not pair.shift.any():
        return None, None
    scope = ir.graph_of(layer.node.outputs[0])
    if scope is None:
        raise ValueError(f"{layer.node.name!r} is in no graph")
    hint = str(layer.bias.name) if layer.bias is not None else f"{layer.weight.name}_bias"
    return editor.initializer(scope, f"{hint}_shifted", _cast(layer, vector + pair.shift)), None


def _added(editor: Editor, layer: Linear, node: Node, shift: Array | None) -> list[Node]:
    """An Add of one number per output, where one is needed."""
    scope = ir.graph_of(layer.node.outputs[0])
    if shift is None or not shift.any() or scope is None:
        return []
    tail = (1,) * (len(layer.tap.window.kernel) if layer.tap.window is not None else 0)
    content = _cast(layer, shift).reshape(-1, *tail)
    value = editor.initializer(scope, f"{layer.weight.name}_shift", content)
    hint = str(layer.node.outputs[0].name)
    return [editor.node("Add", [node.outputs[0], value], outputs=[hint], like=layer.node)]


def _absorber(layer: Linear) -> tuple[Node, int] | None:
    """The Add, and its input, that adds one constant number per output to a MatMul, if it is the
    only reader."""
    output = layer.node.outputs[0]
    uses = list(output.uses())
    if layer.kind != "matmul" or len(uses) != 1 or output.is_graph_output():
        return None
    add, index = uses[0]
    if ir.op(add) != "Add" or add.graph is not layer.node.graph:
        return None
    bias = ir.array(add.inputs[1 - index])
    return (add, 1 - index) if bias is not None and bias.shape == (layer.out_features,) else None


def _absorb(editor: Editor, add: Node, index: int, shift: Array) -> None:
    own = editor.unshare(add, index)
    bias = ir.array(own)
    if bias is None:
        raise ValueError(f"the bias of {add.name!r} is no longer a constant")
    content = (bias.astype(np.float64) + shift).astype(bias.dtype)
    editor.replace_initializer(own, content)


def _cast(layer: Linear, vector: Array) -> Array:
    tensor = ir.constant(layer.weight)
    return vector.astype(np.float32 if tensor is None else tensor.dtype.numpy())


def _node(
    editor: Editor,
    layer: Linear,
    suffix: str,
    inputs: list[Value | None],
    attributes: dict[str, object],
) -> Node:
    """A node like the layer's; its output and its own name are those of the layer with a suffix."""
    node = layer.node
    end = {"reduce": "d", "expand": "ed"}[suffix]  # values and nodes share one name space
    while inputs[-1] is None:
        inputs = inputs[:-1]
    return editor.node(
        node.op_type,
        inputs,
        outputs=[f"{node.outputs[0].name}_{suffix}{end}"],
        attributes=attributes,
        name=f"{node.name or node.outputs[0].name}_{suffix}",
        like=node,
    )
