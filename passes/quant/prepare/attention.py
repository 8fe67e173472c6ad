"""Attention written out -> ONNX Runtime's own operator, where the target has one.

q, k, v -> heads; MatMul(q, k'); [* scale;] [+ mask;] Softmax; MatMul with v; heads joined
becomes   MultiHeadAttention(q, k, v [, mask])   with q, k and v as they were before the heads.

Both products stay in float32, as before. What it saves is a dozen small kernels per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.errors import EditError
from onnxslim.ir import DataType, Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.prepare.heads import Heads, columns_of, heads_of, rows_of, tile
from onnxslim.rewrite import Rewrite, Rule
from onnxslim.rewrite.pattern import Any, Match, either, match, op, single

ATTENTION = "MultiHeadAttention"

_PRODUCT = op("MatMul", Any("q"), Any("k"))
_SCALED = either(
    op("Mul", _PRODUCT, single("factor")), op("Div", _PRODUCT, single("divisor")), _PRODUCT
)
_SCORES = either(op("Add", _SCALED, Any("mask")), _SCALED)
WRITTEN_OUT = op(
    "Reshape",
    op(
        "Transpose",
        op("MatMul", op("Softmax", _SCORES, name="softmax"), Any("v")),
        perm=((0, 2, 1, 3), None),
    ),
    Any("shape"),
)

_EXPANDED = "onnxslim.attention_bias"
"""Marks, in `Value.meta`, a mask with a row for each query."""


@dataclass(frozen=True)
class _Plan:
    """All that the operator needs."""

    parts: tuple[Heads, Heads, Heads]
    whole: bool  # each is all of its source; else they are the parts of one source
    scale: float
    mask: Value | None
    rows: bool  # the mask has one row for all queries, and needs one for each


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    found = match(WRITTEN_OUT, node, facts)
    if not isinstance(found, Match):
        return found
    plan = _plan(found, facts)
    return plan if isinstance(plan, str) else lambda editor: _replace(editor, node, plan)


def _plan(found: Match, facts: Facts) -> _Plan | str:
    if ir.attribute(found.nodes["softmax"], "axis", -1) not in (-1, 3):
        return "its Softmax is not over the keys"
    q = heads_of(found.values["q"], facts)
    k = heads_of(found.values["k"], facts, turned=True)
    v = heads_of(found.values["v"], facts)
    if q is None or k is None or v is None:
        return "queries, keys or values are not the heads of a tensor of three axes"
    if (q.count, k.count, q.size) != (k.count, v.count, k.size):
        return "queries, keys and values differ in their heads"
    whole = all(part.first == 0 and part.width == columns_of(part, facts) for part in (q, k, v))
    if not whole and not tile((q, k, v), facts):
        return "queries, keys and values are not all columns of one tensor"
    rows, keys = (rows_of(part.source, facts) for part in (q, k))
    if keys != rows_of(v.source, facts) or keys[0] != rows[0]:
        return "queries, keys and values differ in their batch"
    if facts.shape(found.root.outputs[0]) != (*rows, v.count * v.size):
        return "its heads are not joined to one axis"
    mask = found.values.get("mask")
    fits = None if mask is None else _fits(mask, facts, (rows[0], q.count, rows[1], keys[1]))
    if isinstance(fits, str):
        return fits
    return _Plan((q, k, v), whole, scale_of(found), mask, bool(fits))


def scale_of(found: Match) -> float:
    """What the scores are multiplied by."""
    if "factor" in found.values:
        return found.number("factor")
    return 1 / found.number("divisor") if "divisor" in found.values else 1.0


def _fits(mask: Value, facts: Facts, scores: tuple[Dim, ...]) -> bool | str:
    """Whether the mask needs a row for each query before it is added to the scores [B, H, S, T];
    or why it cannot be."""
    shape = facts.shape(mask)
    if shape is None or len(shape) != 4 or facts.dtype(mask) != DataType.FLOAT:
        return "its mask is not known to be a tensor of four axes"
    if any(size not in (1, full) for size, full in zip(shape, scores, strict=True)):
        return "its mask has another shape than the scores"
    if shape[3] != scores[3]:
        return "its mask is the same for all keys"
    if shape[2] == scores[2]:
        return False
    if scores[2] != scores[3] or mask.producer() is None:
        return "its mask has one row, and how many queries there are is not seen there"
    return True


def _replace(editor: Editor, node: Node, plan: _Plan) -> Sequence[Node]:
    name = str(node.outputs[0].name)
    mask = _with_rows(editor, node, plan.mask) if plan.mask is not None and plan.rows else plan.mask
    sources: list[Value] = [part.source for part in plan.parts]
    before: list[Node] = []
    if not plan.whole:
        before, sources = _split(editor, node, plan.parts)
    made = editor.node(
        ATTENTION, [*sources, *([] if mask is None else [None, None, mask])], outputs=[name],
        attributes={"num_heads": plan.parts[0].count, "scale": plan.scale}, domain=DOMAIN,
        like=node,
    )  # fmt: skip
    import_domain(editor, node)
    editor.replace_node(node, [*before, made], made.outputs)
    return [*before, made]


def _split(editor: Editor, node: Node, parts: Sequence[Heads]) -> tuple[list[Node], list[Value]]:
    source = parts[0].source
    sizes = editor.initializer(
        editor.scope_of(node),
        f"{source.name}.columns",
        np.array([part.width for part in parts], np.int64),
    )
    split = editor.node(
        "Split", [source, sizes], outputs=[f"{source.name}.{x}" for x in "qkv"],
        attributes={"axis": -1},
    )  # fmt: skip
    return [split], list(split.outputs)


def _with_rows(editor: Editor, node: Node, mask: Value) -> Value:
    """[B, 1, 1, S] as [B, 1, S, S], once for all layers: the operator wants a row per query."""
    for use in mask.uses():
        if use.node.outputs[0].meta.get(_EXPANDED):
            return use.node.outputs[0]
    maker, scope, name = mask.producer(), editor.scope_of(mask), str(mask.name)
    if maker is None or scope is not editor.scope_of(node):
        raise EditError(f"'{name}' is computed in another graph")
    one = editor.initializer(scope, "one_axis", np.array([1], np.int64))
    axes = editor.initializer(scope, "axes_of_bias", np.array([4, 4, 3, 4], np.int64))
    shape = editor.node("Shape", [mask], outputs=[f"{name}.shape"])
    sizes = editor.node("Concat", [shape.outputs[0], one], outputs=[f"{name}.sizes"],
                        attributes={"axis": 0})  # fmt: skip
    wanted = editor.node("Gather", [sizes.outputs[0], axes], outputs=[f"{name}.wanted"])
    made = editor.node("Expand", [mask, wanted.outputs[0]], outputs=[f"{name}.rows"])
    made.outputs[0].meta[_EXPANDED] = True
    editor.insert_after(maker, [shape, sizes, wanted, made])
    return made.outputs[0]


FUSED_ATTENTION = Rule(
    "attention", frozenset({"Reshape"}), _match,
    "heads, MatMul, Softmax, MatMul, heads joined -> MultiHeadAttention", exact=False,
    makes=f"{DOMAIN}::{ATTENTION}",
)  # fmt: skip
