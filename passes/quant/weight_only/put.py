"""Puts layers and tied embeddings on their codes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnxslim import ir
from onnxslim.ir import Editor, Node
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.marks import FLOAT, FloatTable
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.forms import Form, Stored
from onnxslim.passes.quant.weight_only.layers import WeightLayer
from onnxslim.pipeline.base import Declined, Layer


def put_layer(editor: Editor, form: Form, layer: WeightLayer, stored: Stored) -> None:
    """Replace a MatMul or Gemm by a product with its codes; a bias is added behind."""
    node, name = layer.node, str(layer.node.outputs[0].name)
    x, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None  # as they are now
    nodes = list(form.product(editor, x, stored, name, layer.columns()))
    product = nodes[-1]
    if bias is not None:
        nodes.append(editor.node("Add", [product.outputs[0], bias], outputs=[f"{name}.sum"]))
    _replace(editor, node, nodes)
    product.name = node.name or product.name


def put_tables(
    editor: Editor, form: Form, tables: Mapping[Node, Stored], excluded: Collection[str]
) -> tuple[list[Layer], list[Declined]]:
    """Replace each Gather of rows of a table whose codes a layer has stored already."""
    done: list[Layer] = []
    declined: list[Declined] = []
    for node, stored in tables.items():
        row = Layer(ir.label(node), ir.op(node), f"rows of {stored.bits} bits, shared with a layer")
        reason = (
            _put_table(editor, form, node, stored) if first_output(node) not in excluded else ""
        )
        if reason is None:
            done.append(row)
        elif reason:
            declined.append(Declined(row.node, reason))
    return done, declined


def _put_table(editor: Editor, form: Form, node: Node, stored: Stored) -> str | None:
    tensor = ir.constant(node.inputs[0])
    nodes = form.rows(editor, node, stored)
    if isinstance(nodes, str):
        return nodes
    nodes[-1].outputs[0].meta[FLOAT] = FloatTable(tensor, node.name or "")
    _replace(editor, node, nodes)
    return None


def _replace(editor: Editor, node: Node, nodes: Sequence[Node]) -> None:
    if any(made.domain == DOMAIN for made in nodes):
        import_domain(editor, node)
    editor.replace_node(node, nodes, nodes[-1].outputs)
