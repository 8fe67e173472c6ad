"""Queries, keys and values of a decoder as one product, which its attention takes as it is.

GroupQueryAttention(x Wq, x Wk, x Wv, ...)   becomes   GroupQueryAttention(x [Wq Wk Wv], , , ...)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.prepare.decoder_attention import DECODER_ATTENTION
from onnxslim.passes.quant.prepare.projections import Projection, projection
from onnxslim.rewrite import Rewrite, Rule


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    found = [projection(node, index) for index in range(3)]
    parts = [part for part in found if part is not None]
    if len(parts) < 3:
        return None
    if len({part.layer.input for part in parts}) > 1:
        return "queries, keys and values are products of different tensors"
    if any(part.bias is not None for part in parts):
        return "something is added to queries, keys or values"
    return lambda editor: _replace(editor, node, parts)


def _replace(editor: Editor, node: Node, parts: Sequence[Projection]) -> Sequence[Node]:
    scope, first = editor.scope_of(node), parts[0].layer.node
    name = f"{first.outputs[0].name}.packed"
    content = np.concatenate([part.weight for part in parts], axis=1)
    weight = editor.initializer(scope, f"{name}.weight", content)
    product = editor.node("MatMul", [parts[0].layer.input, weight], outputs=[name], like=first)
    attributes = {a.name: a.value for a in node.attributes.values()}
    made = editor.node(
        DECODER_ATTENTION, [product.outputs[0], None, None, *node.inputs[3:]],
        outputs=[str(node.outputs[0].name)], attributes=attributes, domain=DOMAIN,
        name=node.name or "", like=node,
    )  # fmt: skip
    editor.replace_node(node, [product, made], made.outputs)
    editor.prune([part.layer.node for part in parts])
    product.name = first.name  # the first product goes away, its name stays
    return [product, made]


PACKED_HEADS = Rule(
    "packed-heads", frozenset({f"{DOMAIN}::{DECODER_ATTENTION}"}), _match,
    "queries, keys and values as products of one tensor -> one product", exact=False,
)  # fmt: skip
