"""One view of every layer that multiplies by a constant matrix: Conv, Gemm and MatMul.

Whatever the operator, `matrix()[g] @ row + bias_vector()` is the layer's output at a row of its
tap (`columns`), and `from_matrix` turns a changed matrix back into a weight of the same layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap, Window
from onnxslim.ir import Array, Model, Node, Value
from onnxslim.pipeline.base import Declined

Kind = Literal["conv", "deconv", "gemm", "matmul"]


@dataclass(frozen=True)
class Linear:
    """A layer whose weight is constant. `groups` > 1 only for Conv.

    A "deconv" (`transposed_conv`) is a matrix as well, [out, C * prod(kernel)], but has no rows of
    its input that it is multiplied with: its tap names the tensor alone.
    """

    node: Node
    kind: Kind
    input: Value
    input_index: int
    weight: Value
    weight_index: int
    bias: Value | None
    tap: Tap
    groups: int = 1
    transposed: bool = False  # the weight is stored [out, in], as Gemm with transB
    alpha: float = 1.0  # factor of the product (Gemm)
    beta: float = 1.0  # factor of the bias (Gemm)

    @property
    def bias_index(self) -> int | None:
        """The node's input that takes a bias, or None for an operator that has none."""
        return None if self.kind == "matmul" else 2

    @property
    def out_features(self) -> int:
        """Outputs of the layer, all groups together."""
        shape = _weight(self).shape
        return int(shape[0] if self.outputs_first else shape[1])

    @property
    def in_features(self) -> int:
        """Numbers that one output of one group is computed from: C/groups * prod(kernel), or K."""
        return int(_weight(self).size // self.out_features)

    @property
    def spacing(self) -> int:
        """Over how many outputs a row of the matrix is spread: of a deconv, the stride."""
        strides = ir.attribute(self.node, "strides", (1,)) if self.kind == "deconv" else (1,)
        return int(np.prod(strides))

    def matrix(self) -> Array:
        """The weight as [groups, out/groups, d], float64 for a double weight, else float32."""
        rows = self.as_matrix(_weight(self))
        return rows if self.alpha == 1 else np.multiply(rows, self.alpha)

    @property
    def outputs_first(self) -> bool:
        """Whether the weight has its outputs on the first axis, else on the second."""
        return self.kind == "conv" or self.transposed

    def as_matrix(self, content: Array) -> Array:
        """An array of the weight's shape in the order of `matrix()`, without alpha."""
        double = content.dtype == np.float64
        rows: Array = content.astype(np.float64 if double else np.float32)
        if not self.outputs_first:
            rows = np.moveaxis(rows, 1, 0)
        return np.ascontiguousarray(rows.reshape(self.groups, -1, self.in_features))

    def from_rows(self, rows: Array) -> Array:
        """What `as_matrix` has made, in the order of the weight again."""
        sizes = _weight(self).shape
        if self.outputs_first:
            return np.ascontiguousarray(rows.reshape(sizes))
        turned = rows.reshape(sizes[1], sizes[0], *sizes[2:])
        return np.ascontiguousarray(np.moveaxis(turned, 0, 1))

    def from_matrix(self, matrix: Array) -> Array:
        """A matrix like that of `matrix()` as a weight: the layout and dtype of the layer's own."""
        weight = _weight(self)
        if matrix.shape != (self.groups, self.out_features // self.groups, self.in_features):
            raise ValueError(f"matrix of {matrix.shape} for a weight of {weight.shape}")
        scaled: Array = matrix if self.alpha == 1 else np.divide(matrix, self.alpha)
        return self.from_rows(scaled).astype(weight.dtype)

    def bias_vector(self) -> Array | None:
        """What is added to each output, [out] float64: zeros without a bias, None when the bias
        is computed or differs from row to row."""
        if self.bias is None:
            return np.zeros(self.out_features)
        bias = ir.array(self.bias)
        if bias is None or bias.size not in (1, self.out_features):
            return None
        if bias.ndim and bias.shape[-1] != bias.size:  # a column [M, 1] belongs to rows
            return None
        return np.broadcast_to(bias.astype(np.float64).ravel() * self.beta, self.out_features)

    def from_bias(self, vector: Array) -> Array:
        """A bias like that of `bias_vector()` as the node's bias input, [out]."""
        weight = _weight(self)
        if vector.shape != (self.out_features,):
            raise ValueError(f"bias of {vector.shape} for {self.out_features} outputs")
        return (vector / self.beta).astype(weight.dtype)


def linear(node: Node) -> Linear | str:
    """The layer that a node is, or the reason why it is none."""
    reader = _READERS.get(ir.op(node))
    return f"{ir.op(node)} is not a linear layer" if reader is None else reader(node)


def transposed_conv(node: Node) -> Linear | str:
    """The layer that a ConvTranspose of one group is, or the reason why it is none."""
    x, weight = node.inputs[0], node.inputs[1]
    if (reason := _constant_weight(weight, (3, 4, 5))) is not None:
        return reason
    if int(ir.attribute(node, "group", 1)) != 1:
        return "its groups have scales that lie on no axis of the weight"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None
    assert weight is not None
    return Linear(node, "deconv", x, 0, weight, 1, bias, Tap(str(x.name), axis=1))


def linear_layers(model: Model) -> tuple[list[Linear], list[Declined]]:
    """All layers of all scopes in order, and the Conv, Gemm and MatMul that are none and why."""
    layers: list[Linear] = []
    declined: list[Declined] = []
    for node in ir.nodes(model):
        if ir.op(node) not in _READERS:
            continue
        layer = linear(node)
        if isinstance(layer, str):
            declined.append(Declined(node.name or str(node.outputs[0].name), layer))
        else:
            layers.append(layer)
    return layers, declined


def _weight(layer: Linear) -> Array:
    array = ir.array(layer.weight)
    if array is None:
        raise ValueError(f"the weight of {layer.node.name!r} is no longer a constant")
    return array


def _constant_weight(value: Value | None, ranks: tuple[int, ...]) -> str | None:
    """Why a value cannot be taken as a weight; None when it can."""
    tensor = ir.constant(value)
    producer = value.producer() if value is not None else None
    if producer is not None and ir.op(producer) == "DequantizeLinear":
        return "the weight is quantized already"
    if value is None or tensor is None:
        return "the weight is computed, not a constant"
    if not tensor.dtype.is_floating_point() or tensor.dtype.itemsize < 2:
        return f"the weight is {tensor.dtype.name}, not a float of 16 bits or more"
    if len(tensor.shape) not in ranks:
        return f"the weight has rank {len(tensor.shape)}, expected {' or '.join(map(str, ranks))}"
    if 0 in tuple(tensor.shape):
        return "the weight is empty"
    return None


def _conv(node: Node) -> Linear | str:
    x, weight = node.inputs[0], node.inputs[1]
    if (reason := _constant_weight(weight, (3, 4, 5))) is not None:
        return reason
    shape = _shape(weight)
    rank = len(shape) - 2
    groups = int(ir.attribute(node, "group", 1))
    if shape[0] % groups:
        return f"{shape[0]} outputs cannot be split into {groups} groups"
    window = Window(
        kernel=shape[2:],
        strides=_ints(node, "strides", (1,) * rank),
        dilations=_ints(node, "dilations", (1,) * rank),
        pads=_ints(node, "pads", (0,) * 2 * rank),
        auto_pad=_text(ir.attribute(node, "auto_pad", "NOTSET")),
    )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None
    assert weight is not None
    tap = Tap(str(x.name), window, groups)
    return Linear(node, "conv", x, 0, weight, 1, bias, tap, groups)


def _gemm(node: Node) -> Linear | str:
    x, weight = node.inputs[0], node.inputs[1]
    if (reason := _constant_weight(weight, (2,))) is not None:
        return reason
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    alpha = float(ir.attribute(node, "alpha", 1.0))
    beta = float(ir.attribute(node, "beta", 1.0))
    if alpha == 0 or (beta == 0 and bias is not None):
        return "a factor alpha or beta of zero leaves the weight or the bias without effect"
    assert x is not None
    assert weight is not None
    return Linear(
        node, "gemm", x, 0, weight, 1, bias,
        Tap(str(x.name), axis=0 if ir.attribute(node, "transA", 0) else -1),
        transposed=bool(ir.attribute(node, "transB", 0)),
        alpha=alpha,
        beta=beta,
    )  # fmt: skip


def _matmul(node: Node) -> Linear | str:
    x, weight = node.inputs[0], node.inputs[1]
    if ir.constant(x) is not None and ir.constant(weight) is None:
        return "the constant is on the left, so it mixes rows and not features"
    if ir.constant(x) is not None:
        return "both operands are constants"
    if (reason := _constant_weight(weight, (2,))) is not None:
        return reason
    assert x is not None
    assert weight is not None
    return Linear(node, "matmul", x, 0, weight, 1, None, Tap(str(x.name)))


_READERS: dict[str, Callable[[Node], Linear | str]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _shape(value: Value | None) -> tuple[int, ...]:
    tensor = ir.constant(value)
    return () if tensor is None else tuple(int(n) for n in tensor.shape)  # type: ignore[arg-type]


def _ints(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    values = ir.attribute(node, name)
    return tuple(int(v) for v in values) if values else default


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
