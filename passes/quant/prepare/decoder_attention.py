"""Causal attention of a decoder -> ONNX Runtime's own operator, where the target has one.

q, k, v -> heads; q and k turned by position; keys and values repeated for the queries that share
them; MatMul(q, k'); [* scale;] + causal mask; Softmax; MatMul with v; heads joined
becomes   GroupQueryAttention(q, k, v, ...)   with q, k and v as they were before the heads.

What it saves is some thirty small kernels per layer, a fourth of the time of a token where weights
are in few bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.errors import EditError
from onnxslim.ir import Array, DataType, Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.prepare.attention import WRITTEN_OUT, scale_of
from onnxslim.passes.quant.prepare.heads import Heads, heads_of, rows_of, transposed
from onnxslim.passes.quant.prepare.rotary import Rotation, rotated, unshared, whole
from onnxslim.rewrite import Rewrite, Rule
from onnxslim.rewrite.pattern import Match, match

DECODER_ATTENTION = "GroupQueryAttention"

FAR = -1e4
"""What is added to scores that are not to count: exp of it, and of less, is 0 in float32."""

HEAD_MULTIPLE = 16
"""Sizes of heads that the operator turns: its tables have multiples of 8 columns, half of one."""

_LENGTHS = "onnxslim.lengths"
"""Marks, in `Value.meta` of a mask, the two inputs that say how long the texts are."""

_TABLE = "onnxslim.half_table"
"""The same of a rotary table, its half."""


@dataclass(frozen=True)
class _Plan:
    """All that the operator needs."""

    parts: tuple[Heads, Heads, Heads]
    scale: float
    mask: Value
    ids: Value  # an input [B, S, ...] of the model
    rotation: Rotation
    tables: tuple[Array, Array]  # [positions, D / 2]


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    found = match(WRITTEN_OUT, node, facts)
    if not isinstance(found, Match) or "mask" not in found.values:
        return found if isinstance(found, str) else None
    plan = _plan(found, facts)
    return plan if isinstance(plan, str) else lambda editor: _replace(editor, node, plan)


def _plan(found: Match, facts: Facts) -> _Plan | str:
    if ir.attribute(found.nodes["softmax"], "axis", -1) not in (-1, 3):
        return "its Softmax is not over the keys"
    turned = transposed(found.values["k"], (0, 1, 3, 2))
    keys = None if turned is None else unshared(turned, facts)
    query = rotated(found.values["q"], facts)
    key = rotated(keys, facts) if isinstance(keys, Value) else None
    value = unshared(found.values["v"], facts)
    value = heads_of(value, facts) if isinstance(value, Value) else value
    if query is None or key is None or value is None:
        return "queries or keys are not heads turned by their positions"
    parts = (query[0], key[0], value)
    misfit = _misfit(parts, facts) or _masks_too_much(found, parts[0], facts)
    if misfit is not None:
        return misfit
    if query[1] != key[1]:
        return "queries and keys are turned by different tables"
    rows = rows_of(parts[0].source, facts)
    tables = query[1].tables(rows[1], facts)
    ids = _of_rows(found.root, rows, facts)
    if isinstance(tables, str) or ids is None:
        return tables if isinstance(tables, str) else "no input of the model has its rows"
    return _Plan(parts, scale_of(found), found.values["mask"], ids, query[1], tables)


def _misfit(parts: tuple[Heads, Heads, Heads], facts: Facts) -> str | None:
    q, k, v = parts
    if (k.count, k.size) != (v.count, v.size) or q.size != k.size or q.count % k.count:
        return "queries, keys and values differ in their heads"
    if q.size % HEAD_MULTIPLE:
        return f"its heads of {q.size} numbers are no multiple of {HEAD_MULTIPLE}"
    if not all(whole(part, facts) for part in parts):
        return "queries, keys and values are not all of a tensor"
    rows = {rows_of(part.source, facts) for part in parts}
    return None if len(rows) == 1 else "queries, keys and values differ in their rows"


def _masks_too_much(found: Match, q: Heads, facts: Facts) -> str | None:
    """Why the mask is another than one that hides the positions behind a query, if it is."""
    mask, rows = found.values["mask"], rows_of(q.source, facts)
    if facts.shape(found.root.outputs[0]) != (*rows, q.width):
        return "its heads are not joined to one axis"
    trilu = mask.producer()
    if trilu is None or ir.op(trilu) != "Trilu" or facts.shape(mask) != (rows[1], rows[1]):
        return "its mask is not known to be causal"
    above = facts.array(trilu.inputs[1]) if len(trilu.inputs) > 1 else None
    fill = trilu.inputs[0].producer() if trilu.inputs[0] is not None else None
    if not ir.attribute(trilu, "upper", 1) or above is None or int(above.reshape(())) != 1:
        return "its mask is not known to be causal"
    value = ir.attribute(fill, "value") if fill and ir.op(fill) == "ConstantOfShape" else None
    far = None if value is None else float(value.numpy().reshape(()))
    return None if far is not None and far <= FAR else "its mask is not known to be causal"


def _of_rows(node: Node, rows: tuple[Dim, ...], facts: Facts) -> Value | None:
    """An input of the graph that has these rows."""
    graph = node.graph
    inputs = graph.inputs if isinstance(graph, ir.Graph) else ()
    return next((v for v in inputs if (facts.shape(v) or ())[:2] == rows), None)


def _replace(editor: Editor, node: Node, plan: _Plan) -> Sequence[Node]:
    lengths = _lengths(editor, node, plan)
    named = zip((plan.rotation.cos, plan.rotation.sin), plan.tables, strict=True)
    tables = [_halved(editor, node, table, content) for table, content in named]
    q, k, _ = plan.parts
    attributes = {
        "num_heads": q.count,
        "kv_num_heads": k.count,
        "scale": plan.scale,
        "do_rotary": 1,
    }
    sources = [part.source for part in plan.parts]
    made = editor.node(
        DECODER_ATTENTION, [*sources, None, None, *lengths, *tables],
        outputs=[str(node.outputs[0].name)], attributes=attributes, domain=DOMAIN, like=node,
    )  # fmt: skip
    import_domain(editor, node)
    editor.replace_node(node, [made], made.outputs)
    return [made]


def _lengths(editor: Editor, node: Node, plan: _Plan) -> tuple[Value, Value]:
    """The last position of each text, int32 [B], and how many there are, int32 [1]; made once."""
    known = plan.mask.meta.get(_LENGTHS)
    if known is not None:
        return known  # type: ignore[no-any-return]
    maker, scope = plan.mask.producer(), editor.scope_of(plan.mask)
    if maker is None or scope is not editor.scope_of(node):
        raise EditError(f"'{plan.mask.name}' is computed in another graph")
    name, nodes = f"{plan.mask.name}.lengths", list[Node]()

    def add(op: str, inputs: Sequence[Value], part: str, **attributes: int) -> Value:
        nodes.append(editor.node(op, inputs, outputs=[f"{name}.{part}"], attributes=attributes))
        return nodes[-1].outputs[0]

    def constant(part: str, content: Array) -> Value:
        return editor.initializer(scope, f"{name}.{part}", content)

    shape = add("Shape", [plan.ids], "shape")
    rows = [
        add("Gather", [shape, constant(f"{part}_axis", np.array([axis], np.int64))], part, axis=0)
        for axis, part in enumerate(("batch", "rows"))
    ]
    total = add("Cast", [rows[1]], "total", to=int(DataType.INT32))
    last = add("Sub", [total, constant("one", np.array([1], np.int32))], "position")
    found = add("Expand", [last, rows[0]], "last"), total
    editor.insert_after(maker, nodes)
    plan.mask.meta[_LENGTHS] = found
    return found


def _halved(editor: Editor, node: Node, table: Value, content: Array) -> Value:
    """The half of a rotary table, stored once."""
    if _TABLE not in table.meta:
        table.meta[_TABLE] = editor.initializer(
            editor.scope_of(node), f"{table.name}.half", np.ascontiguousarray(content)
        )
    return table.meta[_TABLE]  # type: ignore[no-any-return]


CAUSAL_ATTENTION = Rule(
    "causal-attention", frozenset({"Reshape"}), _match,
    "heads turned by position, MatMul, causal mask, Softmax, MatMul, heads joined -> "
    "GroupQueryAttention",
    exact=False, makes=f"{DOMAIN}::{DECODER_ATTENTION}",
)  # fmt: skip
