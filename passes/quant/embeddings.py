"""Embeddings: Gather of rows of a large float32 table -> Gather of int8 rows and of their scales.

E [V, D], ids -> Gather(E int8, ids); Gather(scales [V, 1], ids); Cast; Mul. A scale for each row
keeps rows of any magnitude; DequantizeLinear behind the Gather could only take one per table, or
per column (eight times as slow as the float Gather in ONNX Runtime). 128 rows of 384 numbers take
0.01 ms more than from the float table, which is four times as large.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxslim import ir
from onnxslim.ir import DataType, Editor, Node, Value
from onnxslim.passes.quant.marks import FLOAT, FloatTable
from onnxslim.passes.quant.qparams import quantize_weight
from onnxslim.passes.quant.selection import first_output
from onnxslim.pipeline.base import Declined, Layer

SMALLEST = 2**18
"""Numbers in a table (1 MB) below which its size is not worth the additional nodes."""


def quantize_embeddings(
    editor: Editor, excluded: Collection[str] = ()
) -> tuple[list[Layer], list[Declined]]:
    """Rewrite every Gather of a large table in place; a table that several read is stored once.

    Expects that layers are quantized already: a table that float nodes read besides stays float,
    as it would have to be stored twice.
    """
    done: list[Layer] = []
    declined: list[Declined] = []
    tables: dict[Value, tuple[Value, Value]] = {}
    for node in list(ir.nodes(editor.model)):
        if not _is_embedding(node) or first_output(node) in excluded:
            continue
        row = Layer(ir.label(node), "Gather", "int8 table, a scale per row")
        table = node.inputs[0]
        assert table is not None
        reason = None if table in tables else _misfit(table, excluded)
        if reason is not None:
            declined.append(Declined(row.node, reason))
            continue
        if table not in tables:
            tables[table] = _stored(editor, table)
        _rewrite(editor, node, tables[table])
        done.append(row)
    editor.remove_dead()
    return done, declined


def _is_embedding(node: Node) -> bool:
    tensor = ir.constant(node.inputs[0]) if ir.op(node) == "Gather" else None
    if tensor is None or tensor.dtype != DataType.FLOAT:
        return False
    if len(tensor.shape) != 2 or tensor.size < SMALLEST:
        return False
    return int(ir.attribute(node, "axis", 0)) in (0, -2) and ir.constant(node.inputs[1]) is None


def _misfit(table: Value, excluded: Collection[str]) -> str | None:
    content = ir.array(table)
    if content is None or not np.isfinite(content).all():
        return "the table holds NaN or infinity"
    if table.is_graph_output():
        return "its table is an output of the model"
    for use in table.uses():
        if not _is_embedding(use.node) or use.idx or first_output(use.node) in excluded:
            return f"its table stays float32 for '{ir.label(use.node)}' ({ir.op(use.node)}) as well"
    return None


def _stored(editor: Editor, table: Value) -> tuple[Value, Value]:
    content, scope = ir.array(table), editor.scope_of(table)
    assert content is not None
    integers = quantize_weight(content, 0)
    scales = np.ascontiguousarray(integers.scale.reshape(-1, 1))
    return (
        editor.initializer(scope, f"{table.name}.int8", integers.values),
        editor.initializer(scope, f"{table.name}.scale", scales),
    )


def _rewrite(editor: Editor, node: Node, stored: tuple[Value, Value]) -> None:
    name, tensor, ids = str(node.outputs[0].name), ir.constant(node.inputs[0]), node.inputs[1]
    rows = editor.node("Gather", [stored[0], ids], outputs=[f"{name}.int8"])
    scales = editor.node("Gather", [stored[1], ids], outputs=[f"{name}.scales"])
    cast = editor.node(
        "Cast", rows.outputs, outputs=[f"{name}.cast"], attributes={"to": DataType.FLOAT.value}
    )
    mul = editor.node("Mul", [cast.outputs[0], scales.outputs[0]], outputs=[f"{name}.rows"])
    mul.outputs[0].meta[FLOAT] = FloatTable(tensor, node.name or "")
    editor.replace_node(node, [rows, scales, cast, mul], mul.outputs)


def restore_embedding(editor: Editor, node: Node, mark: FloatTable) -> None:
    """The Gather of the float table that a node stands for, found along first inputs."""
    gather: Node | None = node
    while gather is not None and "Gather" not in ir.op(gather):
        value = gather.inputs[0]
        gather = None if value is None else value.producer()
    assert gather is not None
    assert mark.tensor is not None
    name = str(node.outputs[0].name)
    table = editor.initializer(editor.scope_of(node), f"{name}.table", mark.tensor)
    made = editor.node("Gather", [table, gather.inputs[1]], outputs=[f"{name}.float"])
    made.name = mark.name
    del node.outputs[0].meta[FLOAT]
    editor.replace_node(node, [made], made.outputs)
