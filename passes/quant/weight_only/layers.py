"""The layers that scheme weight stores in codes: MatMul and Gemm with a constant weight."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.linear import linear
from onnxslim.ir import Array, DataType, Model, Node, TensorProtocol, Value
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.uncovered import other_type
from onnxslim.pipeline.base import Declined

SMALLEST = 4096
"""Numbers in a weight below which the codes save nothing worth a kernel."""

SMALLEST_BLOCK = 16
"""The smallest block that MatMulNBits takes."""


@dataclass(frozen=True)
class WeightLayer:
    """A layer to be stored in codes. `held` is the constant, `flip` whether it is [out, d]."""

    node: Node
    tap: Tap  # the rows that it reads
    held: Value
    flip: bool
    block: int
    alpha: float = 1.0

    @property
    def inputs(self) -> int:
        """d, without reading the weight."""
        tensor = ir.constant(self.held)
        assert tensor is not None
        return int(tensor.shape[1 if self.flip else 0])  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        """How many numbers the weight has."""
        tensor = ir.constant(self.held)
        assert tensor is not None
        return int(tensor.size)

    def rows(self) -> Array:
        """The weight as [out, d], float32."""
        content = ir.array(self.held)
        assert content is not None
        return _rows(content, self.flip, self.alpha)

    def columns(self) -> TensorProtocol | None:
        """The float weight as [d, out], computed when it is needed."""
        tensor, flip, alpha = ir.constant(self.held), self.flip, self.alpha
        if tensor is None or (not flip and alpha == 1):
            return tensor
        sizes = [int(n) for n in tensor.shape]  # type: ignore[arg-type]
        shape = sizes[::-1] if flip else sizes
        return ir.lazy_tensor(
            lambda: np.ascontiguousarray(_rows(tensor.numpy(), flip, alpha).T),
            DataType.FLOAT,
            shape,
        )

    def table_readers(self) -> list[Node]:
        """The Gather of rows of the same constant: embeddings to which the layer is tied."""
        if not self.flip:
            return []
        uses = [(use.node, use.idx) for use in self.held.uses()]
        return [node for node, index in uses if index == 0 and _gathers_rows(node)]


def find_layers(
    model: Model, block: int, excluded: Collection[str], smallest: int = SMALLEST_BLOCK
) -> tuple[list[WeightLayer], list[Declined]]:
    """All layers of all scopes that fit, and the other MatMul and Gemm with reasons. Blocks are
    halved until they divide the inputs, but not below the `smallest`."""
    found: list[WeightLayer] = []
    declined: list[Declined] = []
    tables = _tables(model)
    for node in ir.nodes(model):
        if ir.op(node) not in ("MatMul", "Gemm") or first_output(node) in excluded:
            continue
        layer = _layer(node, block, smallest)
        if isinstance(layer, str):
            declined.append(Declined(ir.label(node), layer))
        else:
            found.append(_tied_by_content(layer, tables))
    return found, declined


def _tables(model: Model) -> list[Value]:
    """The float constants of two dimensions whose rows are gathered."""
    gathers = (node for node in ir.nodes(model) if _gathers_rows(node))
    held = (node.inputs[0] for node in gathers if ir.constant(node.inputs[0]) is not None)
    return list(dict.fromkeys(value for value in held if value is not None))


def _tied_by_content(layer: WeightLayer, tables: Iterable[Value]) -> WeightLayer:
    """The layer on an embedding table of which its weight is a transposed copy, if there is one."""
    if layer.flip or layer.alpha != 1:
        return layer
    weight = ir.constant(layer.held)
    for table in tables:
        tensor = ir.constant(table)
        if tensor is None or weight is None or tuple(tensor.shape)[::-1] != tuple(weight.shape):
            continue
        if np.array_equal(tensor.numpy().T, weight.numpy()):
            return replace(layer, held=table, flip=True)
    return layer


def _layer(node: Node, block: int, smallest: int) -> WeightLayer | str:
    head = _tied(node, block)
    if head is None:
        read = linear(node)
        if isinstance(read, str):
            return read
        if read.beta != 1.0 or ir.attribute(node, "transA", 0):
            return "its input is transposed or its bias scaled"
        head = WeightLayer(node, read.tap, read.weight, read.transposed, block, read.alpha)
    return _fitting(head, block, smallest)


def _tied(node: Node, block: int) -> WeightLayer | None:
    """x, Transpose(constant) -> MatMul, as the last layer that shares its table with a Gather."""
    x, weight = node.inputs[0], node.inputs[1]
    turn = weight.producer() if weight is not None else None
    if ir.op(node) != "MatMul" or x is None or turn is None or ir.op(turn) != "Transpose":
        return None
    held = turn.inputs[0]
    tensor = ir.constant(held)
    if held is None or tensor is None or len(tensor.shape) != 2:
        return None
    if list(ir.attribute(turn, "perm", (1, 0))) != [1, 0]:
        return None
    return WeightLayer(node, Tap(str(x.name)), held, True, block)


def _fitting(layer: WeightLayer, block: int, smallest: int) -> WeightLayer | str:
    """The layer with the largest block up to the one asked for that divides d, or why none."""
    content = ir.array(layer.held)
    if content is None or content.dtype != np.float32:
        return other_type("the weight", layer.held.dtype)
    if content.size < SMALLEST:
        return f"its {content.size} weights are too few to gain anything"
    if not np.isfinite(content).all():
        return "the weight holds NaN or infinity"
    d = int(content.shape[1] if layer.flip else content.shape[0])
    while d % block:
        block //= 2
    if block < smallest:
        return f"its {d} inputs are no multiple of {smallest}, the smallest block"
    return replace(layer, block=block)


def _gathers_rows(node: Node) -> bool:
    return ir.op(node) == "Gather" and int(ir.attribute(node, "axis", 0)) in (0, -2)


def _rows(content: Array, flip: bool, alpha: float) -> Array:
    rows = content if flip else content.T
    return np.ascontiguousarray(rows if alpha == 1 else rows * np.float32(alpha))
