"""MatMul of a matrix + Add of a constant vector -> Gemm."""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node
from onnxslim.rewrite import Rewrite, Rule


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    """ONNX Runtime makes a Gemm of it in any case, whose bias must then be integers too."""
    at = 0 if ir.constant(node.inputs[0]) is None else 1
    product, bias = node.inputs[at], ir.array(node.inputs[1 - at])
    matmul = product.producer() if product is not None else None
    if matmul is None or ir.op(matmul) != "MatMul" or bias is None:
        return None
    x, weight = matmul.inputs[0], ir.constant(matmul.inputs[1])
    assert product is not None
    if len(product.uses()) != 1 or product.is_graph_output() or matmul.graph is not node.graph:
        return "the MatMul's output is read elsewhere too"
    if x is None or facts.rank(x) != 2 or weight is None or len(weight.shape) != 2:
        return "its input is not known to be a matrix, or its weight is not a constant one"
    columns = int(weight.shape.numpy()[1])
    if bias.ndim > 2 or bias.size != columns or bias.shape[-1:] != (columns,):
        return f"its constant has the shape {list(bias.shape)}, not one number per column"
    return lambda editor: _replace(editor, matmul, node, 1 - at, bias)


def _replace(editor: Editor, matmul: Node, add: Node, at: int, bias: Array) -> Sequence[Node]:
    vector = add.inputs[at]
    if bias.ndim != 1 and vector is not None:
        vector = editor.initializer(editor.scope_of(add), str(vector.name), bias.ravel())
    inputs = [*matmul.inputs, vector]
    made = editor.node("Gemm", inputs, outputs=[str(add.outputs[0].name)], like=matmul)
    editor.replace_node(add, [made], [made.outputs[0]])
    made.name, matmul.name = matmul.name, made.name  # the MatMul goes away, its name stays
    return [made]


MATMUL_ADD = Rule(
    "matmul-add-to-gemm", frozenset({"Add"}), _match, "MatMul of a matrix + bias -> Gemm",
    exact=False,
)  # fmt: skip
RULES: tuple[Rule, ...] = (MATMUL_ADD,)
