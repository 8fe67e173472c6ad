"""Which operators may be computed now instead of at each run."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.ir import AttributeType, Node

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Others are not known to give the same result each time."""

RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"}
)  # fmt: skip

QUANTIZATION = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
"""They say what is to run in int8; folding one away would say it no longer."""

GROWING = frozenset(
    {"CenterCropPad", "ConstantOfShape", "Expand", "EyeLike", "Gather", "OneHot", "Pad", "Range",
     "Resize", "ScatterElements", "Tile", "Upsample"}
)  # fmt: skip
"""Operators whose result can be of any size; they are computed only once the size is known."""

_GRAPHS = (AttributeType.GRAPH, AttributeType.GRAPHS)


def refusal(node: Node) -> str | None:
    """Why a node must not be computed now even if all of its inputs are constants."""
    operator = ir.op(node)
    if node.domain not in DOMAINS:
        return f"the domain '{node.domain}' is not known to be free of state"
    if node.op_type in RANDOM:
        return f"{operator} is random"
    if node.op_type in QUANTIZATION:
        return f"{operator} is kept: it says what runs in integers"
    if _widens(node):
        return f"{operator} is kept: its constant is stored in few bits"
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return f"{operator} holds graphs"
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "an attribute differs from call to call of its function"
    return None


def _widens(node: Node) -> bool:
    """Whether this is the Cast of a constant of less than 8 bits a number."""
    constant = ir.constant(node.inputs[0]) if node.op_type == "Cast" else None
    return constant is not None and constant.dtype.bitwidth < 8
