"""Weight-only layers: MatMul | Gemm -> MatMul of a weight that DequantizeLinear makes of codes.

x, W -> MatMul(x, DequantizeLinear(codes [d, out], scales [d / block, out], zeros)) [; + bias]
ONNX Runtime makes one MatMulNBits of it, at accuracy level 4 (integer products) by default: as
fast as the operator itself. It does so for constants with axis 0 only, not behind a Transpose,
and for blocks of 16, 32, 64, ... that divide d.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.linear import linear
from onnxslim.errors import EditError
from onnxslim.ir import Array, DataType, Editor, Model, Node, TensorProtocol, Value
from onnxslim.passes.quant.marks import FLOAT, FloatWeight
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.grid import Grid
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

    def rows(self) -> Array:
        """The weight as [out, d], float32."""
        return _rows(ir.array(self.held), self.flip, self.alpha)


def find_layers(
    model: Model, block: int, excluded: Collection[str]
) -> tuple[list[WeightLayer], list[Declined]]:
    """All layers of all scopes that fit, and the other MatMul and Gemm with reasons."""
    found: list[WeightLayer] = []
    declined: list[Declined] = []
    for node in ir.nodes(model):
        if ir.op(node) not in ("MatMul", "Gemm") or first_output(node) in excluded:
            continue
        layer = _layer(node, block)
        if isinstance(layer, str):
            declined.append(Declined(ir.label(node), layer))
        else:
            found.append(layer)
    return found, declined


def _layer(node: Node, block: int) -> WeightLayer | str:
    head = _tied(node, block)
    if head is None:
        read = linear(node)
        if isinstance(read, str):
            return read
        if read.beta != 1.0 or ir.attribute(node, "transA", 0):
            return "its input is transposed or its bias scaled"
        head = WeightLayer(node, read.tap, read.weight, read.transposed, block, read.alpha)
    return _fitting(head, block)


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


def _fitting(layer: WeightLayer, block: int) -> WeightLayer | str:
    """The layer with the largest block up to the one asked for that divides d, or why none."""
    content = ir.array(layer.held)
    if content is None or content.dtype != np.float32:
        return "the weight is not float32"
    if content.size < SMALLEST:
        return f"its {content.size} weights are too few to gain anything"
    if not np.isfinite(content).all():
        return "the weight holds NaN or infinity"
    d = int(content.shape[1] if layer.flip else content.shape[0])
    while d % block:
        block //= 2
    if block < SMALLEST_BLOCK:
        return f"its {d} inputs are no multiple of {SMALLEST_BLOCK}, the smallest block"
    return replace(layer, block=block)


Stored = tuple[Value, Value, Value]
"""Codes, scales and zero points."""


def store(editor: Editor, layer: WeightLayer, codes: Array, grid: Grid) -> Stored | str:
    """The constants of a layer: codes [d, out], scales and zeros [blocks, out]."""
    dtype = (DataType.UINT8 if grid.bits > 4 else DataType.UINT4).numpy()
    try:
        scope, hint = editor.scope_of(layer.held), str(layer.held.name)
        return (
            editor.initializer(scope, f"{hint}.codes", _turned(codes.astype(np.uint8), dtype)),
            editor.initializer(scope, f"{hint}.scale", np.ascontiguousarray(grid.scale.T)),
            editor.initializer(scope, f"{hint}.zero", _turned(grid.zero.astype(np.uint8), dtype)),
        )
    except EditError as error:
        return str(error)


def _turned(array: Array, dtype: np.dtype[np.generic]) -> Array:
    return np.ascontiguousarray(array.T).astype(dtype)


def rewrite(editor: Editor, layer: WeightLayer, stored: Stored) -> None:
    """Put the layer on its codes; a bias is added behind."""
    node, name = layer.node, str(layer.node.outputs[0].name)
    x, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None  # as they are now
    attributes = {"axis": 0, "block_size": layer.block}
    dq = editor.node(
        "DequantizeLinear", list(stored), outputs=[f"{name}.weight"], attributes=attributes
    )
    dq.outputs[0].meta[FLOAT] = FloatWeight(_float_weight(layer))
    product = editor.node("MatMul", [x, dq.outputs[0]], outputs=[f"{name}.product"])
    nodes = [dq, product]
    if bias is not None:
        nodes.append(editor.node("Add", [product.outputs[0], bias], outputs=[f"{name}.sum"]))
    editor.replace_node(node, nodes, [nodes[-1].outputs[0]])
    product.name = node.name or product.name


def _float_weight(layer: WeightLayer) -> TensorProtocol | None:
    """The float weight as [d, out], computed when it is needed."""
    tensor = ir.constant(layer.held)
    if tensor is None or (not layer.flip and layer.alpha == 1):
        return tensor
    flip, alpha = layer.flip, layer.alpha
    sizes = [int(n) for n in tensor.shape]  # type: ignore[arg-type]
    shape = sizes[::-1] if flip else sizes
    return ir.lazy_tensor(
        lambda: np.ascontiguousarray(_rows(tensor.numpy(), flip, alpha).T), DataType.FLOAT, shape
    )


def _rows(content: Array | None, flip: bool, alpha: float) -> Array:
    assert content is not None
    rows = content if flip else content.T
    return np.ascontiguousarray(rows if alpha == 1 else rows * np.float32(alpha))
