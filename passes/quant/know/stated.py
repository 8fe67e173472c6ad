"""Ranges without data: what BatchNormalization says of its outputs, carried on by intervals.

After y = BN(x), channel c is close to normal with mean beta_c and deviation |gamma_c|; its range is
taken as beta -+ 5 |gamma|. Source: Nagel et al., Data-Free Quantization (2019), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Model, Node, Value
from onnxslim.passes.fold.affine import normal_of
from onnxslim.passes.quant.know.facts import Range, Stated

DEVIATIONS = 5.0
"""Of a normal distribution, 6e-7 lies further out."""


def stated_facts(model: Model) -> Stated:
    """The intervals of the main graph that follow from its BatchNormalizations; linear."""
    intervals: dict[Value, Range] = {}
    for node in model.graph:
        for output in node.outputs:
            if (normal := normal_of(output)) is not None:
                intervals[output] = _normal_range(normal.mean, normal.deviation)
        rule = _RULES.get(ir.op(node))
        if rule is None or node.outputs[0] in intervals:
            continue
        interval = rule(node, [_interval(intervals, value) for value in node.inputs])
        if interval is not None:
            intervals.update(dict.fromkeys(node.outputs, interval))
    named = {str(value.name): interval for value, interval in intervals.items()}
    return Stated(named)


def _normal_range(mean: Array, deviation: Array) -> Range:
    reach = DEVIATIONS * deviation
    return float((mean - reach).min()), float((mean + reach).max())


def _interval(intervals: dict[Value, Range], value: Value | None) -> Range | None:
    if value is None:
        return None
    constant = ir.array(value)
    if constant is not None and constant.dtype.kind == "f" and constant.size:
        return float(constant.min()), float(constant.max())
    return intervals.get(value)


Interval = Callable[[Node, "list[Range | None]"], "Range | None"]


def _same(node: Node, inputs: list[Range | None]) -> Range | None:
    return inputs[0]


def _hull(node: Node, inputs: list[Range | None]) -> Range | None:
    known = [interval for interval in inputs if interval is not None]
    if len(known) < len(inputs):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _sum(node: Node, inputs: list[Range | None]) -> Range | None:
    """Of independent terms: half widths add like deviations, sqrt(a^2 + b^2)."""
    a, b = inputs
    if a is None or b is None:
        return None
    middle = (a[0] + a[1] + b[0] + b[1]) / 2
    reach = float(np.hypot(a[1] - a[0], b[1] - b[0])) / 2
    return max(middle - reach, a[0] + b[0]), min(middle + reach, a[1] + b[1])


def _product(node: Node, inputs: list[Range | None]) -> Range | None:
    a, b = inputs
    if a is None or b is None:
        return None
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _quotient(node: Node, inputs: list[Range | None]) -> Range | None:
    divisor = inputs[1]
    if divisor is None or divisor[0] <= 0 <= divisor[1]:
        return None
    return _product(node, [inputs[0], (1 / divisor[1], 1 / divisor[0])])


def _relu(node: Node, inputs: list[Range | None]) -> Range | None:
    return None if inputs[0] is None else (max(inputs[0][0], 0.0), max(inputs[0][1], 0.0))


def _clip(node: Node, inputs: list[Range | None]) -> Range | None:
    if inputs[0] is None:
        return None
    low, high = inputs[0]
    for index, bound in ((1, max), (2, min)):
        limit = ir.array(node.inputs[index]) if len(node.inputs) > index else None
        if limit is not None and limit.size == 1:
            low, high = bound(low, float(limit)), bound(high, float(limit))
    return low, high


def _unit(node: Node, inputs: list[Range | None]) -> Range | None:
    return 0.0, 1.0


_SAME = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather"),
    *("Tile", "Expand", "Resize", "ReduceMean", "DepthToSpace", "SpaceToDepth"),
)

_RULES: dict[str, Interval] = {
    **dict.fromkeys(_SAME, _same),
    "Relu": _relu,
    "Clip": _clip,
    "Add": _sum,
    "Mul": _product,
    "Div": _quotient,
    "Concat": _hull,
    "Sigmoid": _unit,
    "HardSigmoid": _unit,
    "Softmax": _unit,
}
