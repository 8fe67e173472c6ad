"""What a linear layer without spatial axes is here: MatMul by a constant matrix, its bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, TensorProtocol, Value
from onnxslim.passes.fold.affine import finite


@dataclass(frozen=True)
class Dense:
    """y = x @ weight [+ beta * bias]; `bias` is where that constant is read: node and input."""

    node: Node  # the MatMul or Gemm
    tensor: TensorProtocol  # the weight [K, N], times alpha of a Gemm
    bias: tuple[Node, int] | None = None
    transposed: bool = False  # the weight lies as [N, K]
    beta: float = 1.0

    @property
    def sizes(self) -> tuple[int, int]:
        """How many inputs and outputs: K and N."""
        one, two = (int(size) for size in self.tensor.shape.numpy())
        return (two, one) if self.transposed else (one, two)

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
    transposed, beta = False, 1.0
    if weight.dtype.numpy().kind != "f":
        return f"its weight is {weight.dtype.numpy()}"
    if ir.op(node) == "Gemm":
        transposed = bool(ir.attribute(node, "transB", 0))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias, beta = (node, 2), float(ir.attribute(node, "beta", 1.0))
    found = Dense(node, weight, bias, transposed, beta)
    reason = None if bias is None else _odd_bias(bias, found.sizes[1], beta)
    return found if reason is None else reason


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


def changed(old: TensorProtocol, factor: Array, change: Callable[[Array], Array]) -> TensorProtocol:
    """A weight times factors, in its type and shape: computed when it is read or written.

    What may go beyond the type's range is computed now too: half precision, and odd factors.

    Raises:
        EditError: it is beyond the range of its type, or too small for it.
    """
    dtype = old.dtype.numpy()
    if dtype.itemsize < 4 or not _is_moderate(factor):
        finite(change(old.numpy()), dtype)
    return ir.lazy_tensor(lambda: change(old.numpy()).astype(dtype), old.dtype, old.shape.numpy())


def _is_moderate(factor: Array) -> bool:
    """Whether the factors move no weight of a trained model to the ends of float32's range."""
    magnitudes: Array = np.abs(factor[factor != 0])
    return bool(np.all((magnitudes > 1e-12) & (magnitudes < 1e12)))  # False for NaN


def set_weight(editor: Editor, node: Node, index: int, content: Array | TensorProtocol) -> None:
    """Give a node a constant of its own with other content; a name that nothing else has stays."""
    editor.replace_initializer(editor.unshare(node, index), content)
