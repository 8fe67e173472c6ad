"""Puts a narrow table and what maps it back into the place of a table.

Gather(E, ids)           -> MatMul(Gather(A, ids), B)
Gather(E, ids)           -> MatMul(Gather(A, ids), B) + Gather(S, Gather(index, ids))
                            where rows stay whole: they are zero in A, and all others in S
MatMul(h, Transpose(E))  -> MatMul(MatMul(h, B^T), Transpose(A))    where E is tied
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Editor, Graph, Node, Value
from onnxslim.passes.lowrank.tables import Table, content
from onnxslim.pipeline.base import Layer


@dataclass(frozen=True)
class _Parts:
    """The constants in the place of the table."""

    narrow: Value
    up: Value
    index: Value | None = None  # where each row that stays is in `whole`; the others: the last
    whole: Value | None = None


def write_table(editor: Editor, table: Table, rank: int) -> Layer:
    """Replace the table wherever it is read; its readers' results keep their names."""
    scope = table.value.graph or editor.model.graph
    hint = str(table.value.name)
    narrow, up = (a.astype(np.float32) for a in table.factors(rank))
    parts = _Parts(
        editor.initializer(scope, f"{hint}_reduced", narrow),
        editor.initializer(scope, f"{hint}_expand", up),
        *_whole(editor, scope, table),
    )
    for gather in table.gathers:
        nodes = _read(editor, gather, parts)
        editor.replace_node(gather, nodes, [nodes[-1].outputs[0]])
    if table.turned is not None and table.head is not None:
        turned = editor.initializer(scope, f"{hint}_head", np.transpose(up))
        _write_head(editor, table, parts.narrow, turned)
    loss = 10 * np.log10(1 / max(table.read[rank], 1e-30))
    tied = " and its tied head" if table.head is not None else ""
    stay = f", {len(table.kept)} rows stay as they are" if len(table.kept) else ""
    action = f"table{tied} rank {rank} of {table.size[1]}{stay}"
    return Layer(table.name, "Gather", action, float(loss))


def _whole(editor: Editor, scope: Graph, table: Table) -> tuple[Value, Value] | tuple[()]:
    if not len(table.kept):
        return ()
    rows = content(table.value)
    index = np.full(len(rows), len(table.kept), np.int32)
    index[table.kept] = np.arange(len(table.kept))
    whole = np.concatenate([rows[table.kept], np.zeros((1, rows.shape[1]), rows.dtype)])
    hint = str(table.value.name)
    return (
        editor.initializer(scope, f"{hint}_index", index),
        editor.initializer(scope, f"{hint}_whole", whole),
    )


def _read(editor: Editor, gather: Node, parts: _Parts) -> list[Node]:
    """What gives the rows; the last node their sum."""
    output, ids = str(gather.outputs[0].name), gather.inputs[1]
    name = gather.name or output

    def node(kind: str, inputs: list[Value | None], what: str) -> Node:
        return editor.node(
            kind, inputs, outputs=[f"{output}_{what}"], name=f"{name}_{what}", like=gather
        )

    one = node("Gather", [parts.narrow, ids], "reduced")
    two = node("MatMul", [one.outputs[0], parts.up], "expanded")
    if parts.index is None or parts.whole is None:
        return [one, two]
    at = node("Gather", [parts.index, ids], "index")
    row = node("Gather", [parts.whole, at.outputs[0]], "whole")
    return [one, two, at, row, node("Add", [two.outputs[0], row.outputs[0]], "sum")]


def _write_head(editor: Editor, table: Table, small: Value, down: Value) -> None:
    assert table.turned is not None
    assert table.head is not None
    hint = str(table.head.outputs[0].name)
    turned = editor.node("Transpose", [small], outputs=[f"{table.turned.outputs[0].name}_reduced"],
                         attributes={"perm": [1, 0]}, like=table.turned)  # fmt: skip
    reduce = editor.node("MatMul", [table.head.inputs[0], down], outputs=[f"{hint}_reduced"],
                         name=f"{table.head.name or hint}_reduce", like=table.head)  # fmt: skip
    expand = editor.node("MatMul", [reduce.outputs[0], turned.outputs[0]],
                         outputs=[f"{hint}_expanded"], name=f"{table.head.name or hint}_expand",
                         like=table.head)  # fmt: skip
    editor.replace_node(table.head, [turned, reduce, expand], [expand.outputs[0]])
