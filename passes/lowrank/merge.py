"""Pairs that do not pay become one layer again.

MatMul(MatMul(x, A), B) -> MatMul(x, A B)     and likewise Gemm, and Conv before a 1x1 Conv,
where the one has no more weights and multiplications than the two, whose middle nothing else reads.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear, linear_layers
from onnxslim.ir import Array, Editor, Model


def merge_pairs(model: Model, editor: Editor, skip: tuple[str, ...] = ()) -> int:
    """Merge in place, in all scopes, but for nodes named in `skip`; how many pairs."""
    count = 0
    for found in linear_layers(model)[0]:
        second = linear(found.node)  # as it is after the merges before it
        first = _before(second) if isinstance(second, Linear) else None
        if first is None or not isinstance(second, Linear) or _named(first, second, skip):
            continue
        if _pays(first, second):
            _merge(editor, first, second)
            count += 1
    if count:
        editor.remove_dead()
    return count


def _before(second: Linear) -> Linear | None:
    """The layer that alone makes the input of another and that alone it is read by."""
    maker = second.input.producer()
    if maker is None or maker.graph is not second.node.graph:
        return None
    if len(list(second.input.uses())) != 1 or second.input.is_graph_output():
        return None
    first = linear(maker)
    if not isinstance(first, Linear) or first.kind != second.kind:
        return None
    return first if _fit(first, second) else None


def _fit(first: Linear, second: Linear) -> bool:
    """Whether the product is a layer of the first one's kind."""
    if first.bias_vector() is None or second.bias_vector() is None:
        return False
    if second.kind == "matmul":
        return True
    if second.kind == "gemm":
        return second.tap.axis == -1
    window = second.tap.window
    return (
        window is not None
        and first.groups == second.groups == 1
        and prod(window.kernel) == 1
        and set(window.strides) == {1}
        and not any(window.pads)
    )


def _named(first: Linear, second: Linear, skip: tuple[str, ...]) -> bool:
    names = (ir.label(first.node), ir.label(second.node))
    return any(fnmatchcase(name, pattern) for name in names for pattern in skip)


def _pays(first: Linear, second: Linear) -> bool:
    """Whether one layer is no larger. Both multiply the same rows, so that weights tell all; those
    that others read too would stay."""
    if any(len(list(layer.weight.uses())) > 1 for layer in (first, second)):
        return False
    one = second.out_features * first.in_features
    middle = first.out_features
    return one <= middle * (first.in_features + second.out_features)


def _merge(editor: Editor, first: Linear, second: Linear) -> None:
    """The second node reads the first one's input with the product of both weights."""
    outer, inner = second.matrix()[0].astype(np.float64), first.matrix()[0].astype(np.float64)
    node, scope = first.node, ir.graph_of(first.node.outputs[0])
    bias_inner, bias_outer = first.bias_vector(), second.bias_vector()
    if scope is None or bias_inner is None or bias_outer is None:
        return
    weight = ir.array(first.weight)
    dtype = np.float32 if weight is None else weight.dtype
    made: Array = (outer @ inner).astype(dtype)
    if first.kind == "conv":
        kernel = () if first.tap.window is None else first.tap.window.kernel
        made = made.reshape(len(made), -1, *kernel)
    elif not first.transposed:
        made = np.transpose(made)
    hint = str(second.weight.name)
    inputs = [node.inputs[0], editor.initializer(scope, hint, np.ascontiguousarray(made))]
    bias = (outer @ bias_inner + bias_outer).astype(dtype)
    if first.bias is not None or second.bias is not None:
        inputs.append(editor.initializer(scope, f"{hint}_bias", bias))
    kept = {k: v for k, v in _attributes(first).items() if k not in ("alpha", "beta")}
    merged = editor.node(
        node.op_type,
        inputs,
        outputs=[f"{second.node.outputs[0].name}_merged"],
        attributes=kept,
        name=f"{second.node.name or second.node.outputs[0].name}_merged",
        like=second.node,
    )
    editor.replace_node(second.node, [merged], [merged.outputs[0]])


def _attributes(layer: Linear) -> dict[str, object]:
    return {name: ir.attribute(layer.node, name) for name in layer.node.attributes}
