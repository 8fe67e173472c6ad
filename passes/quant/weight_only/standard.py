"""Codes in ONNX's own operators: x, W -> MatMul(x, DequantizeLinear(codes, scales, zeros)).

Codes are [d, out], scales and zeros [d / block, out]. ONNX Runtime makes one MatMulNBits of the two
nodes, at accuracy level 4 (integer products) unless its session option
session.qdq_matmulnbits_accuracy_level says otherwise: as fast as the operator itself. It does so
for constants with axis 0 only, not behind a Transpose, and for blocks of 16, 32, 64, ... that
divide d; and only where nothing else reads the constants. A table that is tied to a layer is
therefore read through a Transpose (and a Cast, as Gather takes no 4-bit numbers), which is folded
at load: Gather(codes^T, ids), the same of scales and zeros; DequantizeLinear.

SIGNED is the same for runtimes without zero points: codes are int4, and tables stay in float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, DataType, Editor, Node, Scope, TensorProtocol, Value
from onnxslim.passes.quant.marks import FLOAT, FloatWeight
from onnxslim.passes.quant.weight_only.forms import Form, Stored, code_type, stored_bits
from onnxslim.passes.quant.weight_only.grid import Grid


def _store(editor: Editor, scope: Scope, hint: str, codes: Array, grid: Grid) -> Stored:
    bits, (out, d) = stored_bits(grid), codes.shape
    dtype = code_type(bits).numpy()

    def turned(array: Array) -> Array:
        return np.ascontiguousarray(array.T).astype(np.uint8).astype(dtype)

    return Stored(
        editor.initializer(scope, f"{hint}.codes", turned(codes)),
        editor.initializer(scope, f"{hint}.scale", np.ascontiguousarray(grid.scale.T)),
        editor.initializer(scope, f"{hint}.zero", turned(grid.zero)),
        out, d, grid.block, bits,
    )  # fmt: skip


def _store_signed(editor: Editor, scope: Scope, hint: str, codes: Array, grid: Grid) -> Stored:
    out, d = codes.shape
    signed: Array = (codes.astype(np.int8) - grid.spread(grid.zero).astype(np.int8)).T
    return Stored(
        editor.initializer(scope, f"{hint}.codes", signed.astype(DataType.INT4.numpy())),
        editor.initializer(scope, f"{hint}.scale", np.ascontiguousarray(grid.scale.T)),
        None, out, d, grid.block, stored_bits(grid),
    )  # fmt: skip


def _no_rows(editor: Editor, node: Node, stored: Stored) -> str:
    return "the target looks up no rows in codes"


def _product(
    editor: Editor, x: Value | None, stored: Stored, name: str, columns: TensorProtocol | None
) -> Sequence[Node]:
    attributes = {"axis": 0, "block_size": stored.block}
    dq = editor.node(
        "DequantizeLinear", stored.inputs, outputs=[f"{name}.weight"], attributes=attributes
    )
    dq.outputs[0].meta[FLOAT] = FloatWeight(columns)
    return dq, editor.node("MatMul", [x, dq.outputs[0]], outputs=[f"{name}.product"])


def _rows(editor: Editor, node: Node, stored: Stored) -> Sequence[Node] | str:
    if any(ir.op(use.node) in ("MatMul", "Gemm") for use in node.outputs[0].uses()):
        return (
            "ONNX Runtime would fuse its rows with the product that reads them and fail; "
            "weight_form=nbits stores it"
        )
    name, nodes = str(node.outputs[0].name), list[Node]()

    def add(op: str, source: Value, part: str, **attributes: Any) -> Value:
        inputs = [source, node.inputs[1]] if op == "Gather" else [source]
        made = editor.node(op, inputs, outputs=[f"{name}.{part}"], attributes=attributes)
        nodes.append(made)
        return made.outputs[0]

    def gathered(source: Value, part: str) -> Value:
        if stored.bits < 8 and source is not stored.scale:
            source = add("Cast", source, f"{part}.wide", to=DataType.UINT8.value)
        return add("Gather", add("Transpose", source, f"{part}.rows", perm=[1, 0]), part)

    parts = [
        gathered(source, part)
        for source, part in zip(stored.inputs, ("codes", "scale", "zero"), strict=True)
    ]
    blocks = {"axis": -1, "block_size": stored.block}
    rows = [f"{name}.float"]
    nodes.append(editor.node("DequantizeLinear", parts, outputs=rows, attributes=blocks))
    return nodes


STANDARD = Form(21, _store, _product, _rows)
SIGNED = Form(21, _store_signed, _product, _no_rows)
