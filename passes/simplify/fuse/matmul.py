"""What a linear layer without spatial axes is here: MatMul by a constant matrix, its bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor, Node, Value


@dataclass(frozen=True)
class Dense:
    """y = x @ weight [+ beta * bias]; `bias` is where that constant is read: node and input."""

    node: Node  # the MatMul or Gemm
    weight: Array  # [K, N], times alpha of a Gemm
    bias: tuple[Node, int] | None = None
    transposed: bool = False  # the weight lies as [N, K]
    beta: float = 1.0

    @property
    def output(self) -> Value:
        """What the layer computes, with its bias."""
        return (self.bias[0] if self.bias is not None else self.node).outputs[0]


def dense_before(value: Value) -> Dense | str | None:
    """The layer that computes a value; why it cannot be changed; None where there is none."""
    node = value.producer()
    if node is None or ir.op(node) != "Add":
        return None if node is None else dense(node)
    at = next((i for i in (0, 1) if ir.constant(node.inputs[i]) is not None), None)
    product = None if at is None else node.inputs[1 - at]
    matmul = None if product is None else product.producer()
    if at is None or product is None or matmul is None or ir.op(matmul) != "MatMul":
        return None
    if len(product.uses()) != 1 or product.is_graph_output() or matmul.graph is not node.graph:
        return f"'{product.name}', before its bias, is read elsewhere too"
    return dense(matmul, (node, at))


def dense(node: Node, bias: tuple[Node, int] | None = None) -> Dense | str | None:
    """A MatMul or Gemm as a layer whose weight can be changed, or why not."""
    if ir.op(node) not in ("MatMul", "Gemm"):
        return None
    weight = ir.constant(node.inputs[1])
    if weight is None or len(weight.shape) != 2:
        return None
    if (reason := shared_weight(node, 1)) is not None:
        return reason
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "it takes attributes from its function"
    array, transposed, beta = weight.numpy(), False, 1.0
    if array.dtype.kind != "f":
        return f"its weight is {array.dtype}"
    if ir.op(node) == "Gemm":
        transposed = bool(ir.attribute(node, "transB", 0))
        array = array.T if transposed else array
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias, beta = (node, 2), float(ir.attribute(node, "beta", 1.0))
    if bias is not None and (reason := _odd_bias(bias, array.shape[1], beta)) is not None:
        return reason
    return Dense(node, array, bias, transposed, beta)


def _odd_bias(bias: tuple[Node, int], columns: int, beta: float) -> str | None:
    """Why a bias is no constant with one number per column."""
    vector = ir.array(bias[0].inputs[bias[1]])
    if vector is None:
        return "its bias is computed"
    if vector.size not in (1, columns) or vector.shape[-1:] not in ((), (vector.size,)):
        return "its bias is not one number per column"
    return "its bias does not count: beta is 0" if beta == 0 else None


def shared_weight(node: Node, index: int) -> str | None:
    """Why a weight cannot be changed without a copy of it."""
    value = node.inputs[index]
    if value is not None and (len(value.uses()) > 1 or value.is_graph_output()):
        return f"its weight '{value.name}' is read elsewhere too"
    return None


def finite(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """The numbers in the type of the weight, as exact as those were.

    Raises:
        EditError: they are beyond the range of the type, or so small that it rounds them to
            multiples of its smallest number.
    """
    limits = np.finfo(dtype.name)
    largest = float(np.abs(array).max(initial=0))
    if not largest <= float(limits.max):  # so for NaN
        raise EditError(f"the new weight would be beyond the range of {dtype}")
    if 0 < largest < float(limits.tiny):
        raise EditError(f"the new weight would be too small for {dtype}")
    made: Array = array.astype(dtype)
    return made


def set_weight(editor: Editor, node: Node, index: int, content: Array) -> None:
    """Give a node a constant of its own with other content; a name that nothing else has stays."""
    editor.replace_initializer(editor.unshare(node, index), content)
