"""Parts that are quantized already are kept; what is quantized beside them takes their integers.

A layer that reads a DequantizeLinear, or whose output only QuantizeLinears read, gets the scale and
zero point that are there. QuantizeLinear undoes such a DequantizeLinear exactly, so that

DQ -> Q, DQ -> new layer    becomes  DQ -> new layer
new layer -> Q, DQ -> Q     becomes  new layer -> Q
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.quant.marks import mark_of
from onnxslim.passes.quant.qparams import QParams

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def given_params(value: Value) -> QParams | None:
    """The uint8 parameters that the model has for a tensor already: of the DequantizeLinear that
    makes it, or of all that read it, which are QuantizeLinears with the same ones."""
    producer = value.producer()
    if producer is not None and ir.op(producer) == _DQ:
        return _params(producer)
    readers = [use.node for use in value.uses()]
    if not readers or value.is_graph_output() or any(ir.op(node) != _Q for node in readers):
        return None
    found = {_params(node) for node in readers}
    return found.pop() if len(found) == 1 else None


def join(editor: Editor) -> int:
    """Remove pairs that repeat one beside them, in the main graph; returns how many."""
    count = 0
    for quantize, before in list(_repeated(editor)):
        after = [use.node for use in quantize.outputs[0].uses()]
        if mark_of(before) is not None:  # ours lies before theirs
            source = before.inputs[0].producer() if before.inputs[0] is not None else None
            assert source is not None
            assert source.inputs[0] is not None
            editor.rewire([(quantize, 0)], source.inputs[0])
            count += 1
            continue
        for node in after:
            uses = [(use.node, use.idx) for use in node.outputs[0].uses()]
            if mark_of(node) is not None and uses and not node.outputs[0].is_graph_output():
                editor.rewire(uses, before.outputs[0])
                count += 1
    if count:
        editor.remove_dead()
    return count


def _repeated(editor: Editor) -> Iterator[tuple[Node, Node]]:
    """Each QuantizeLinear that reads a DequantizeLinear with its own parameters, and that one."""
    for node in editor.model.graph:
        source = node.inputs[0] if ir.op(node) == _Q else None
        before = source.producer() if source is not None else None
        if before is None or ir.op(before) != _DQ:
            continue
        mine, made = _params(node), before.inputs[0]
        if mine is None or mine != _params(before) or made is None:
            continue
        maker = made.producer()
        if maker is not None and ir.op(maker) == _Q and _params(maker) == mine:
            yield node, before


def _params(node: Node) -> QParams | None:
    """Scale and zero point where they are constants for a whole tensor of uint8."""
    if len(node.inputs) < 3:
        return None
    scale, zero_point = ir.array(node.inputs[1]), ir.array(node.inputs[2])
    if scale is None or zero_point is None or zero_point.dtype != np.uint8:
        return None
    if scale.size != 1 or zero_point.size != 1 or scale.dtype != np.float32:
        return None
    return QParams(float(scale.item()), int(zero_point.item()))
