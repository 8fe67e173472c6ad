"""Takes what quant put in out again, so that another pass can work on the float model."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model, Node, Value
from onnxslim.passes.quant.embeddings import restore_embedding
from onnxslim.passes.quant.marks import (
    FLOAT,
    FloatAdded,
    FloatCodes,
    FloatConv,
    FloatEdge,
    FloatGate,
    FloatLayer,
    FloatProduct,
    FloatRecurrent,
    FloatTable,
    FloatWeight,
    mark_of,
)
from onnxslim.passes.quant.prepare.gates import restore_gate
from onnxslim.passes.quant.recurrent import restore_lstm
from onnxslim.passes.quant.rewrite.kept_float import restore_conv
from onnxslim.passes.quant.rewrite.normalized import restored
from onnxslim.passes.quant.rewrite.products import restore_product


def to_float(model: Model, editor: Editor) -> int:
    """Undo every Q, DQ and dynamic chain that the quant pass marked; returns how many.

    Weights and biases become the float tensors that they were before. What other tools quantized
    stays. The rewrites that prepared the model (folded BatchNormalization) are not undone.
    """
    count = 0
    for node in list(ir.nodes(model)):
        if isinstance(product := mark_of(node), FloatProduct):
            restore_product(editor, node, product)
    for node in list(ir.nodes(model)):
        mark = mark_of(node)
        if mark is None or node.graph is None:
            continue
        if isinstance(mark, FloatWeight):
            _undo_weight(editor, node, mark)
        elif isinstance(mark, FloatCodes):
            _undo_codes(editor, node, mark)
        elif isinstance(mark, FloatAdded):
            _undo_added(editor, node, mark)
        elif isinstance(mark, FloatEdge):
            _undo_edge(editor, node, mark)
        elif isinstance(mark, FloatConv):
            restore_conv(editor, node)
        elif isinstance(mark, FloatGate):
            restore_gate(editor, node, mark)
        elif isinstance(mark, FloatRecurrent):
            restore_lstm(editor, node, mark)
        elif isinstance(mark, FloatTable):
            restore_embedding(editor, node, mark)
        elif isinstance(mark, FloatLayer):
            _undo_layer(editor, node, mark)
        count += 1
    editor.remove_dead()
    return count


def _undo_weight(editor: Editor, node: Node, mark: FloatWeight) -> None:
    tensor = mark.tensor
    made = node.outputs[0]
    if tensor is None:  # a bias that only corrects the integers' error
        integers = ir.array(node.inputs[0])
        assert integers is not None
        content: ir.Array | ir.TensorProtocol = np.zeros(integers.shape, np.float32)
    else:
        content = tensor
    own = editor.initializer(editor.scope_of(node), str(made.name), content)
    editor.rewire([(use.node, use.idx) for use in made.uses()], own)


def _undo_codes(editor: Editor, node: Node, mark: FloatCodes) -> None:
    assert mark.tensor is not None
    name = str(node.outputs[0].name)
    weight = editor.initializer(editor.scope_of(node), f"{name}.weight", mark.tensor)
    made = editor.node("MatMul", [node.inputs[0], weight], outputs=[f"{name}.float"], like=node)
    made.name = node.name
    del node.outputs[0].meta[FLOAT]
    editor.replace_node(node, [made], made.outputs)


def _undo_added(editor: Editor, node: Node, mark: FloatAdded) -> None:
    assert mark.tensor is not None
    own = editor.initializer(editor.scope_of(node), str(mark.tensor.name), mark.tensor)
    editor.rewire([(node, mark.index)], own)
    del node.outputs[0].meta[FLOAT]


def _undo_edge(editor: Editor, node: Node, mark: FloatEdge) -> None:
    q = node.inputs[0].producer() if node.inputs[0] is not None else None
    assert q is not None
    source = q.inputs[0]
    if mark.smoothed and source is not None and (divide := source.producer()) is not None:
        source = divide.inputs[0]
    assert source is not None
    if mark.scaled and (maker := source.producer()) is not None:
        restored(editor, maker, mark.scaled)
    made = node.outputs[0]
    steps = _affine_nodes(editor, node, source, mark)
    if made.is_graph_output() and not steps:
        steps = [editor.node("Identity", [source], outputs=[f"{made.name}.float"])]
    if steps:
        del made.meta[FLOAT]
        editor.replace_node(node, steps, [steps[-1].outputs[0]])
    else:
        editor.rewire([(use.node, use.idx) for use in made.uses()], source)


def _affine_nodes(editor: Editor, node: Node, source: Value, mark: FloatEdge) -> list[Node]:
    """Mul and Add that do what the DequantizeLinear did besides."""
    if mark.affine.trivial:
        return []
    scope, name = editor.scope_of(node), str(node.outputs[0].name)
    factor = editor.initializer(scope, f"{name}.factor", np.array([mark.affine.factor], np.float32))
    offset = editor.initializer(scope, f"{name}.offset", np.array([mark.affine.offset], np.float32))
    mul = editor.node("Mul", [source, factor], outputs=[f"{name}.mul"])
    add = editor.node("Add", [mul.outputs[0], offset], outputs=[f"{name}.add"])
    return [mul, add]


def _undo_layer(editor: Editor, node: Node, mark: FloatLayer) -> None:
    """The last node of the chain becomes the layer; the others are dead then."""
    assert mark.tensor is not None
    bias = node.inputs[1] if ir.op(node) == "Add" else None
    scaled = node.inputs[0].producer() if bias is not None and node.inputs[0] else node
    x = _input_of(scaled)
    name = str(node.outputs[0].name)
    weight = editor.initializer(editor.scope_of(node), f"{name}.weight", mark.tensor)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    attributes = {"transB": 1} if mark.transposed else {}
    made = editor.node(mark.op, inputs, outputs=[f"{name}.float"], attributes=attributes)
    made.name = mark.name  # reports call it as before; that name went with the layer
    del node.outputs[0].meta[FLOAT]
    editor.replace_node(node, [made], [made.outputs[0]])


def _input_of(scaled: Node | None) -> Value | None:
    """Mul <- Cast <- MatMulInteger <- DynamicQuantizeLinear <- x."""
    for _ in range(3):
        value = scaled.inputs[0] if scaled is not None else None
        scaled = value.producer() if value is not None else None
    return scaled.inputs[0] if scaled is not None else None
