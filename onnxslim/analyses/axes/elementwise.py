"""Operators that treat every position by itself: the atoms of all operands are the same."""

from __future__ import annotations

from onnxslim.analyses.axes.atoms import Axis
from onnxslim.analyses.axes.site import RIGID, Rules, Site, Unfollowed


def same(site: Site) -> None:
    """The first output is like the first input; other inputs are scalars."""
    axes = site.axes(0)
    for index in range(len(site.node.outputs)):
        site.set(index, axes)


def broadcast(site: Site) -> None:
    """All operands are broadcast against each other, as numpy does."""
    present = [i for i in range(len(site.node.inputs)) if site.has(i)]
    rank = max(len(site.axes(i)) for i in present)
    site.set(0, [broadcast_axis(site, present, axis - rank) for axis in range(rank)])


def broadcast_axis(site: Site, operands: list[int], axis: int) -> Axis:
    """The atoms along one axis, counted from the end, of operands that are broadcast."""
    found: list[Axis] = []
    for index in operands:
        axes, dims = site.axes(index), site.dims(index)
        if len(axes) >= -axis and dims[axis] != 1:
            found.append(axes[axis])
    if any(ids is None for ids in found):
        for ids in found:
            site.freeze(ids, RIGID)
        return None
    result: Axis = found[0] if found else None
    for ids in found[1:]:
        result = site.tie(result, ids)
    return result


def _quantize(site: Site) -> None:
    axes = site.axes(0)
    if site.attr("block_size", 0):
        raise Unfollowed("its scales are per block")
    for index in (1, 2):
        if site.has(index) and len(site.axes(index)) == 1 and site.dims(index) != (1,):
            site.tie(axes[int(site.attr("axis", 1))], site.axes(index)[0])
    site.set(0, axes)


def _prelu(site: Site) -> None:
    rank = len(site.axes(0))
    if len(site.axes(1)) > rank:
        raise Unfollowed("its slope has more axes than its input")
    broadcast(site)


_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp
    Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu
    Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
    com.microsoft::Gelu com.microsoft::QuickGelu CastLike
"""
_BROADCAST = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor com.microsoft::BiasGelu
    com.microsoft::FastGelu
"""

RULES: Rules = {
    **dict.fromkeys(_UNARY.split(), same),
    **dict.fromkeys(_BROADCAST.split(), broadcast),
    "PRelu": _prelu,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
}
