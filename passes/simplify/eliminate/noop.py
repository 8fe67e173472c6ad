"""Nodes that hand on one of their inputs as it is.

Cast, CastLike to the type it has; Transpose that keeps the order; Expand, Tile, Slice, Pad, Concat,
Split, Resize, pooling, reductions and Sum, Max, Min, Mean that change nothing
"""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Node, Value
from onnxslim.passes.simplify.eliminate.common import given, integers, is_absent, removal
from onnxslim.rewrite import Rule

_ENDLESS = 2**31 - 1  # ends from here on are what exporters write for "to the end"


def _same_shape(node: Node, facts: Facts) -> bool:
    before, after = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    return before is not None and before == after


def _cast(node: Node, facts: Facts) -> Value | None:
    x = node.inputs[0]
    dtype = facts.dtype(x)
    wanted = ir.attribute(node, "to") if ir.op(node) == "Cast" else facts.dtype(given(node, 1))
    return x if dtype is not None and wanted is not None and int(dtype) == int(wanted) else None


def _transpose(node: Node, facts: Facts) -> Value | None:
    perm = ir.attribute(node, "perm")
    if perm is None:
        rank = facts.rank(node.inputs[0])
        return node.inputs[0] if rank is not None and rank < 2 else None
    return node.inputs[0] if list(perm) == sorted(perm) else None


def _expand(node: Node, facts: Facts) -> Value | str | None:
    if _same_shape(node, facts):
        return node.inputs[0]
    content, rank = facts.content(given(node, 1)), facts.rank(node.inputs[0])
    if content is not None and rank is not None and len(content) <= rank and set(content) <= {1}:
        return node.inputs[0]
    return "it may change the shape"


def _tile(node: Node, facts: Facts) -> Value | None:
    content = facts.content(given(node, 1))
    unchanged = content is not None and all(count == 1 for count in content)
    return node.inputs[0] if unchanged else None


def _slice(node: Node, facts: Facts) -> Value | str | None:
    steps = integers(node, facts, "steps", 4)
    if steps is None and not is_absent(node, "steps", 4):
        return "its steps are computed"
    if steps is not None and any(step != 1 for step in steps):
        return None
    if _same_shape(node, facts):
        return node.inputs[0]
    starts, ends = integers(node, facts, "starts", 1), integers(node, facts, "ends", 2)
    if starts is None or ends is None:
        return "its bounds are computed"
    everything = all(start == 0 for start in starts) and all(end >= _ENDLESS for end in ends)
    return node.inputs[0] if everything else None


def _pad(node: Node, facts: Facts) -> Value | None:
    name = "pads" if "paddings" not in node.attributes else "paddings"
    pads = integers(node, facts, name, 1)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _single(node: Node, facts: Facts) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _split(node: Node, facts: Facts) -> Value | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


def _resize(node: Node, facts: Facts) -> Value | str | None:
    if ir.attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return "it may crop"
    if _same_shape(node, facts):
        return node.inputs[0]
    scales = ir.attribute(node, "scales")
    if scales is None:
        old = ir.op(node) == "Upsample" or len(node.inputs) == 2
        array = facts.array(given(node, 1 if old else 2))
        scales = None if array is None else array.ravel().tolist()
    unscaled = scales is not None and len(scales) and all(scale == 1 for scale in scales)
    return node.inputs[0] if unscaled else None


def _pool(node: Node, facts: Facts) -> Value | None:
    names = ("kernel_shape", "strides", "dilations")
    ones = all(size == 1 for name in names for size in ir.attribute(node, name, ()))
    pads = any(ir.attribute(node, "pads", ()))
    return node.inputs[0] if ones and not pads and "kernel_shape" in node.attributes else None


def _reduce(node: Node, facts: Facts) -> Value | str | None:
    """Over axes of size one, which stay."""
    shape = facts.shape(node.inputs[0])
    if shape is None or not ir.attribute(node, "keepdims", 1):
        return None
    if is_absent(node, "axes", 1):
        axes: tuple[int, ...] = tuple(range(len(shape)))
        if ir.attribute(node, "noop_with_empty_axes", 0):
            return node.inputs[0]
    else:
        known = integers(node, facts, "axes", 1)
        if known is None:
            return "its axes are computed"
        axes = known or tuple(range(len(shape)))
    return node.inputs[0] if all(shape[axis] == 1 for axis in axes) else None


RULES: tuple[Rule, ...] = (
    removal("no-op-cast", ["Cast", "CastLike"], _cast, "Cast to the same type -> its input"),
    removal("no-op-transpose", ["Transpose"], _transpose, "Transpose in order -> its input"),
    removal("no-op-expand", ["Expand"], _expand, "Expand to the same shape -> its input"),
    removal("no-op-tile", ["Tile"], _tile, "Tile once along each axis -> its input"),
    removal("no-op-slice", ["Slice"], _slice, "Slice of everything -> its input"),
    removal("no-op-pad", ["Pad"], _pad, "Pad by nothing -> its input"),
    removal(
        "no-op-of-one",
        ["Concat", "Max", "Mean", "Min", "Sum"],
        _single,
        "Concat, Sum, Max, Min, Mean of one input -> the input",
    ),
    removal("no-op-split", ["Split"], _split, "Split into one part -> its input"),
    removal(
        "no-op-resize", ["Resize", "Upsample"], _resize, "Resize to the same size -> its input"
    ),
    removal(
        "no-op-pool",
        ["AveragePool", "MaxPool"],
        _pool,
        "1x1 pooling -> its input, but for the sign of zero",
        exact=False,
    ),
    removal(
        "no-op-reduce",
        ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"],
        _reduce,
        "reduction over axes of size one that stay -> its input",
    ),
)
