"""Which operators pass on an axis whose atoms repeat, and which of their axes that may be."""

from __future__ import annotations

from collections.abc import Callable

from onnxslim.analyses.axes import elementwise, reshape
from onnxslim.analyses.axes.atoms import Repeated
from onnxslim.analyses.axes.site import Site

_Which = Callable[[int, int], bool]  # of an axis and the rank: whether it may repeat


def _any(axis: int, rank: int) -> bool:
    return True


def _first(axis: int, rank: int) -> bool:
    return axis == 0


def _batch(axis: int, rank: int) -> bool:
    return axis < rank - 2


_PASSED: dict[str, _Which] = {
    **dict.fromkeys(elementwise.RULES, _any),
    **dict.fromkeys(reshape.RULES, _any),
    **dict.fromkeys(("Transpose", "Softmax", "LogSoftmax", "LayerNormalization", "Shape"), _any),
    **dict.fromkeys(("Conv", "ConvTranspose", "BatchNormalization", "MaxPool"), _first),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _first),
    "MatMul": _batch,
}


def passes(site: Site) -> bool:
    """Whether the node leaves axes that repeat as they are."""
    which = _PASSED.get(site.op)
    for value in site.node.inputs:
        axes = () if value is None else site.trace.axes.get(value, ())
        for axis, ids in enumerate(axes):
            if isinstance(ids, Repeated) and (which is None or not which(axis, len(axes))):
                return False
    return True
