"""Weights of 4 bits stored as such: half the bytes of int8, and the same kernels.

int8 -> DequantizeLinear    becomes    int4 -> Cast to int8 -> DequantizeLinear

ONNX Runtime computes the Cast when it opens the model, and then fuses the DequantizeLinear as if
the weight had been int8. A DequantizeLinear of int4 is not fused into a layer with int8 inputs.
Its Cast takes int4 since version 1.23.
"""

from __future__ import annotations

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import DataType, Editor, Model, Node
from onnxslim.passes.quant.audit.audit import audit
from onnxslim.passes.quant.marks import FloatWeight, mark_of

LOW, HIGH = -8, 7
"""What 4 bits hold."""

PACKED_BITS = 4

PACKED_SINCE = 21
"""The opset that has tensors of int4."""


def pack(editor: Editor) -> int:
    """Store the weights of the main graph that fit as int4, in place; returns how many numbers."""
    count = 0
    for node in [n for n in editor.model.graph if _packable(n)]:
        integers = ir.array(node.inputs[0])
        assert integers is not None
        hint = str(node.inputs[0].name) if node.inputs[0] is not None else ""
        packed = editor.initializer(
            editor.model.graph, f"{hint}.int4", integers.astype(DataType.INT4.numpy())
        )
        cast = editor.node(
            "Cast", [packed], outputs=[f"{hint}.bytes"], attributes={"to": int(DataType.INT8)}
        )
        editor.insert_before(node, [cast])
        editor.rewire([(node, 0)], cast.outputs[0])
        count += int(integers.size)
    editor.remove_dead()
    return count


def why_not_packed(model: Model) -> str | None:
    """Why the weights of a quantized model must stay bytes; None where ONNX Runtime makes the same
    integer kernels of the packed model. The model is left as it is."""
    if (ir.opset(model) or 0) < PACKED_SINCE:
        return f"the model cannot be raised to opset {PACKED_SINCE}, the first with int4"
    twin = ir.snapshot(model)
    if not pack(Editor(twin)):
        return "no weight has only 4 bits"
    try:
        before, after = audit(model, {}).int8_kernels, audit(twin, {}).int8_kernels
    except RuntimeUnavailable as error:
        return f"ONNX Runtime does not take them: {error}"
    return None if after >= before else f"only {after} of {before} integer kernels would remain"


def _packable(node: Node) -> bool:
    """Whether this is the DequantizeLinear of a weight that quant made, of at most 4 bits."""
    mark = mark_of(node)
    if not isinstance(mark, FloatWeight) or mark.tensor is None:
        return False
    constant = ir.constant(node.inputs[0])
    if constant is None or constant.dtype != DataType.INT8:
        return False
    integers = ir.array(node.inputs[0])
    return integers is not None and bool((integers >= LOW).all() and (integers <= HIGH).all())
