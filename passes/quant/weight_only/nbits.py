"""Codes in ONNX Runtime's own operators: MatMulNBits, and GatherBlockQuantized for rows of a table.

Both read codes [out, blocks, block * bits / 8], of 4 bits the first in the low half of a byte,
scales [out, blocks] and zeros [out, blocks * bits / 8], of 4 bits padded to whole bytes in each
row (contrib_ops/cpu/quantization/matmul_nbits_helper.h, gather_block_quantized.cc). The table has
two dimensions where rows are gathered; a Reshape, which is folded at load, makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.ir import Array, Editor, Node, Scope, TensorProtocol, Value
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.marks import FLOAT, FloatCodes
from onnxslim.passes.quant.weight_only.forms import Form, Stored, stored_bits
from onnxslim.passes.quant.weight_only.grid import Grid

ACCURACY_LEVEL = 4
"""Inputs are rounded to 8 bits in blocks and multiplied as integers; several times as fast."""


def packed(numbers: Array, bits: int) -> Array:
    """Whole numbers [out, n] of 4 or 8 bits as bytes, uint8 [out, ceil(n * bits / 8)]."""
    whole: Array = numbers.astype(np.uint8)
    if bits == 8:
        return whole
    if whole.shape[1] % 2:
        whole = np.pad(whole, ((0, 0), (0, 1)))
    halves: Array = whole[:, 0::2] | (whole[:, 1::2] << 4)
    return halves


def _store(editor: Editor, scope: Scope, hint: str, codes: Array, grid: Grid) -> Stored:
    bits, (out, d) = stored_bits(grid), codes.shape
    blobs = packed(codes, bits).reshape(out, d // grid.block, -1)
    return Stored(
        editor.initializer(scope, f"{hint}.codes", blobs),
        editor.initializer(scope, f"{hint}.scale", np.ascontiguousarray(grid.scale)),
        editor.initializer(scope, f"{hint}.zero", packed(grid.zero, bits)),
        out, d, grid.block, bits,
    )  # fmt: skip


def _product(
    editor: Editor, x: Value | None, stored: Stored, name: str, columns: TensorProtocol | None
) -> Sequence[Node]:
    attributes = {
        "K": stored.d,
        "N": stored.out,
        "bits": stored.bits,
        "block_size": stored.block,
        "accuracy_level": ACCURACY_LEVEL,
    }
    made = editor.node(
        "MatMulNBits",
        [x, *stored.inputs],
        outputs=[f"{name}.product"],
        attributes=attributes,
        domain=DOMAIN,
    )
    made.outputs[0].meta[FLOAT] = FloatCodes(columns)
    return (made,)


def _rows(editor: Editor, node: Node, stored: Stored) -> Sequence[Node] | str:
    scope, name = editor.scope_of(stored.codes), str(node.outputs[0].name)
    shape = editor.initializer(scope, f"{name}.shape", np.array([stored.out, -1], np.int64))
    table = editor.node("Reshape", [stored.codes, shape], outputs=[f"{name}.table"])
    attributes = {
        "bits": stored.bits,
        "block_size": stored.block,
        "gather_axis": 0,
        "quantize_axis": 1,
    }
    gather = editor.node(
        "GatherBlockQuantized",
        [table.outputs[0], node.inputs[1], stored.scale, stored.zero],
        outputs=[f"{name}.float"],
        attributes=attributes,
        domain=DOMAIN,
    )
    return table, gather


NBITS = Form(1, _store, _product, _rows)
