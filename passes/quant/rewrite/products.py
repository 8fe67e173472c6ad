"""Products written as the kernel itself: ONNX Runtime makes it of Q and DQ too, but without a bias.

DQ(x), DQ(W) -> MatMul [-> Add of a constant vector]   becomes   MatMulIntegerToFloat

The same bits, in one kernel for two; without zero points for the weight, as they are 0. What goes
to a QuantizeLinear without a bias is left: of it the runtime makes a product with integer outputs.
"""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.marks import (
    FLOAT,
    FloatAdded,
    FloatEdge,
    FloatProduct,
    FloatWeight,
    mark_of,
)
from onnxslim.passes.quant.prepare.added import constant_behind
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.targets import Target

PRODUCT = "MatMulIntegerToFloat"


def write_products(editor: Editor, plan: Plan, target: Target) -> int:
    """Write the MatMul of a plan that is in the graph as the target's own operator, if it has one;
    returns how many."""
    if target.own.get("MatMul") != f"{DOMAIN}::{PRODUCT}":
        return 0
    nodes = [n for n in plan.layers if ir.op(n) == "MatMul" and not _makes_integers(n)]
    for node in nodes:
        _write(editor, node)
    if nodes:
        editor.remove_dead()
    return len(nodes)


def _write(editor: Editor, node: Node) -> None:
    x, weight = (_maker(node, index) for index in (0, 1))
    last, bias = _bias(editor, node, weight)
    inputs = [x.inputs[0], weight.inputs[0], x.inputs[1], weight.inputs[1], x.inputs[2], None, bias]
    made = editor.node(
        PRODUCT, inputs if bias is not None else inputs[:5],
        outputs=[f"{last.outputs[0].name}.product"], domain=DOMAIN, like=node,
    )  # fmt: skip
    edge, integers, added = mark_of(x), mark_of(weight), mark_of(last)
    assert isinstance(integers, FloatWeight)
    mark = FloatProduct(
        edge if isinstance(edge, FloatEdge) else None,
        integers,
        added if isinstance(added, FloatAdded) else None,
        last.name if last is not node else None,
    )
    import_domain(editor, node)
    editor.replace_node(last, [made], [made.outputs[0]])
    made.outputs[0].meta[FLOAT] = mark
    made.name = node.name  # reports and audits call it as before


def _makes_integers(node: Node) -> bool:
    """Whether the output goes to a QuantizeLinear alone, perhaps through a Relu."""
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) == 1 and ir.op(readers[0]) == "Relu":
        readers = [use.node for use in readers[0].outputs[0].uses()]
    return len(readers) == 1 and ir.op(readers[0]) == "QuantizeLinear"


def _maker(node: Node, index: int) -> Node:
    value = node.inputs[index]
    maker = None if value is None else value.producer()
    assert maker is not None
    assert ir.op(maker) == "DequantizeLinear"
    return maker


def _bias(editor: Editor, node: Node, weight: Node) -> tuple[Node, Value | None]:
    """The node whose output the kernel makes, and what it adds: one number per column."""
    integers = ir.constant(weight.inputs[0])
    assert integers is not None
    place = constant_behind(node, int(integers.shape.numpy()[1]))
    constant = None if place is None else ir.array(place[0].inputs[place[1]])
    if place is None or constant is None:
        return node, None
    add, index = place
    if constant.ndim == 1:
        return add, add.inputs[index]
    product = node.outputs[0]
    if (Facts(editor.model).rank(product) or 0) < constant.ndim:
        return node, None  # the sum may have more axes than the product
    name = str(product.name)
    return add, editor.initializer(editor.scope_of(add), f"{name}.bias", constant.ravel())


def restore_product(editor: Editor, node: Node, mark: FloatProduct) -> None:
    """The Q/DQ form that a kernel stands for, with the marks that it had."""
    x, weight, x_scale, scale, x_zero = node.inputs[:5]
    name = str(node.outputs[0].name)
    scales = ir.array(scale)
    assert scales is not None
    first = editor.node("DequantizeLinear", [x, x_scale, x_zero], outputs=[f"{name}.x"])
    second = editor.node(
        "DequantizeLinear", [weight, scale], outputs=[f"{name}.w"],
        attributes={"axis": 1} if scales.ndim else {},
    )  # fmt: skip
    product = editor.node("MatMul", [*first.outputs, *second.outputs], outputs=[f"{name}.product"])
    made = [first, second, product]
    if mark.add_name is not None:
        at = 1 if mark.added is None else mark.added.index
        terms = [product.outputs[0], node.inputs[6]]
        made.append(editor.node("Add", terms if at else terms[::-1], outputs=[f"{name}.sum"]))
    label = node.name
    editor.replace_node(node, made, [made[-1].outputs[0]])
    product.name = label
    del made[-1].outputs[0].meta[FLOAT]
    for restored, old in ((first, mark.edge), (second, mark.weight)):
        if old is not None:
            restored.outputs[0].meta[FLOAT] = old
    if mark.add_name is not None:
        made[-1].name = mark.add_name
        if mark.added is not None:
            made[-1].outputs[0].meta[FLOAT] = mark.added
