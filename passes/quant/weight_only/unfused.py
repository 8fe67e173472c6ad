"""What ONNX Runtime leaves of the standard form becomes its own operator, found by audit.

DequantizeLinear(codes) -> MatMul, both still in the optimized graph, -> MatMulNBits. ONNX Runtime
1.32 leaves, for example, the first of two products that have a Relu in between.
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.quant.contrib import import_domain
from onnxslim.passes.quant.marks import FloatWeight, mark_of
from onnxslim.passes.quant.weight_only.forms import Stored
from onnxslim.passes.quant.weight_only.grid import Grid
from onnxslim.passes.quant.weight_only.nbits import NBITS
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.session import open_audited


def write_unfused(model: Model, env: Environment) -> int:
    """Write what this machine's runtime does not fuse as MatMulNBits, in place; returns how many.

    Costs opening the model, which is kept open where nothing was left. Raises RuntimeUnavailable.
    """
    opened = open_audited(model, threads=env.threads)
    left = {
        str(node.outputs[0].name)
        for node in opened.graph.graph
        if ir.op(node) == "MatMul" and _dequantized(node) is not None
    }
    makers = {n: _dequantized(n) for n in model.graph if ir.op(n) == "MatMul"}
    products = {node: dq for node, dq in makers.items() if dq is not None}
    wanted = {dq.inputs[0] for n, dq in products.items() if str(n.outputs[0].name) in left}
    editor, stored = Editor(model), dict[Value, Stored]()
    count = sum(
        _write(editor, node, dq, stored) for node, dq in products.items() if dq.inputs[0] in wanted
    )
    if count:
        editor.remove_dead()
    else:
        env.opened.keep(model, opened.session)
    return count


def _dequantized(node: Node) -> Node | None:
    """The DequantizeLinear that makes the weight of a MatMul."""
    maker = None if node.inputs[1] is None else node.inputs[1].producer()
    return maker if maker is not None and ir.op(maker) == "DequantizeLinear" else None


def _write(editor: Editor, node: Node, dq: Node, stored: dict[Value, Stored]) -> bool:
    """Replace one MatMul, if its weight is codes of scheme weight; `stored`: what is, by these."""
    mark, codes = mark_of(dq), dq.inputs[0]
    if codes is None or not isinstance(mark, FloatWeight) or not ir.attribute(dq, "block_size", 0):
        return False
    if any(ir.op(use.node) != "DequantizeLinear" for use in codes.uses()):
        return False  # a table is read from the same codes, which would be stored twice
    if codes not in stored:
        content = _content(dq)
        if content is None:
            return False
        hint = f"{str(codes.name).removesuffix('.codes')}.rows"
        stored[codes] = NBITS.store(editor, editor.scope_of(node), hint, *content)
    name = str(node.outputs[0].name)
    (made,) = NBITS.product(editor, node.inputs[0], stored[codes], name, mark.tensor)
    import_domain(editor, node)
    editor.replace_node(node, [made], [made.outputs[0]])
    made.name = node.name
    return True


def _content(dq: Node) -> tuple[Array, Grid] | None:
    """The codes [out, d] and their grid."""
    codes, scale, zero = (ir.array(value) for value in dq.inputs[:3])
    if codes is None or scale is None or zero is None:
        return None
    bits, block = (8 if codes.dtype == np.uint8 else 4), int(ir.attribute(dq, "block_size", 0))
    grid = Grid(np.transpose(scale), np.transpose(zero).astype(np.float32), bits, block)
    return np.transpose(codes).astype(np.uint8), grid
