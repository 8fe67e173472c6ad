"""Puts a narrow table and what maps it back into the place of a table.

Gather(E, ids)           -> MatMul(Gather(A, ids), B)
Gather(E, ids)           -> MatMul(Gather(A, Gather(i, ids)), B) + Gather(S, Gather(j, ids))
                            where rows stay whole: i is the row's number in A or that of a row of
                            zeros, which comes last, and j the same for S
MatMul(h, Transpose(E))  -> MatMul(MatMul(h, B^T), Transpose(A))    where E is tied
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array, Editor, Graph, Node, Value
from onnxslim.passes.lowrank.candidates import Candidate
from onnxslim.passes.lowrank.tables import Table, content
from onnxslim.pipeline.base import Layer


@dataclass(frozen=True)
class _Some:
    """Some rows of a table, and where each row of it is among them: the others at the last, which
    is zero."""

    rows: Value
    index: Value


@dataclass(frozen=True)
class _Parts:
    """The constants in the place of the table: all of it narrow, or some of it whole."""

    narrow: Value | _Some
    up: Value
    whole: _Some | None = None


def write_table(editor: Editor, table: Table, part: Candidate) -> Layer:
    """Replace the table wherever it is read; its readers' results keep their names."""
    scope = table.value.graph or editor.model.graph
    hint = str(table.value.name)
    reading = table.readings[part.reading]
    narrow, up = (a.astype(np.float32) for a in table.factors(part))
    expand = editor.initializer(scope, f"{hint}_expand", up)
    if len(reading.kept):
        rest = np.delete(np.arange(len(narrow)), reading.kept)
        parts = _Parts(
            _some(editor, scope, f"{hint}_reduced", narrow, rest),
            expand,
            _some(editor, scope, f"{hint}_whole", content(table.value), reading.kept),
        )
    else:
        parts = _Parts(editor.initializer(scope, f"{hint}_reduced", narrow), expand)
    for gather in table.gathers:
        nodes = _read(editor, gather, parts)
        editor.replace_node(gather, nodes, [nodes[-1].outputs[0]])
    if table.turned is not None and table.head is not None:
        assert isinstance(parts.narrow, Value)
        turned = editor.initializer(scope, f"{hint}_head", np.transpose(up))
        _write_head(editor, table, parts.narrow, turned)
    loss = 10 * np.log10(1 / max(reading.read[part.rank], 1e-30))
    tied = " and its tied head" if table.head is not None else ""
    stay = f", {len(reading.kept)} rows stay as they are" if len(reading.kept) else ""
    action = f"table{tied} rank {part.rank} of {table.size[1]}{stay}"
    return Layer(table.name, "Gather", action, float(loss))


def _some(editor: Editor, scope: Graph, hint: str, rows: Array, chosen: Array) -> _Some:
    index = np.full(len(rows), len(chosen), np.int32)
    index[chosen] = np.arange(len(chosen))
    some = np.concatenate([rows[chosen], np.zeros((1, rows.shape[1]), rows.dtype)])
    return _Some(
        editor.initializer(scope, hint, some), editor.initializer(scope, f"{hint}_index", index)
    )


def _read(editor: Editor, gather: Node, parts: _Parts) -> list[Node]:
    """What gives the rows; the last node their sum."""
    output, ids = str(gather.outputs[0].name), gather.inputs[1]
    name = gather.name or output

    def node(kind: str, inputs: list[Value | None], what: str) -> Node:
        return editor.node(
            kind, inputs, outputs=[f"{output}_{what}"], name=f"{name}_{what}", like=gather
        )

    def looked_up(some: Value | _Some, what: str) -> list[Node]:
        if not isinstance(some, _Some):
            return [node("Gather", [some, ids], what)]
        at = node("Gather", [some.index, ids], f"{what}_index")
        return [at, node("Gather", [some.rows, at.outputs[0]], what)]

    nodes = looked_up(parts.narrow, "reduced")
    nodes.append(node("MatMul", [nodes[-1].outputs[0], parts.up], "expanded"))
    if parts.whole is None:
        return nodes
    rows = looked_up(parts.whole, "whole")
    both: list[Value | None] = [nodes[-1].outputs[0], rows[-1].outputs[0]]
    return [*nodes, *rows, node("Add", both, "sum")]


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
