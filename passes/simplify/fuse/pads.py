"""A Pad folded into the Conv or pool that reads it.

Pad with zeros -> Conv | AveragePool that counts its padding   becomes   the layer with more pads
Pad with the lowest number -> MaxPool                          becomes   MaxPool with more pads
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.rewrite import Rewrite, Rule

_LAYERS = frozenset({"Conv", "AveragePool", "MaxPool"})


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    value = node.inputs[0]
    pad = value.producer() if value is not None else None
    if value is None or pad is None or ir.op(pad) != "Pad":
        return None
    if len(value.uses()) != 1 or value.is_graph_output() or pad.graph is not node.graph:
        return "the padded value is read elsewhere too"
    if any(a.is_ref() for n in (pad, node) for a in n.attributes.values()):
        return "it takes attributes from its function"
    if ir.op(node) == "AveragePool" and facts.opset(node) < 7:
        return "AveragePool counts no padding before opset 7"
    rank = facts.rank(pad.inputs[0])
    if rank is None:
        return "the rank of its input is not known"
    added = _pads_of(pad, rank)
    if isinstance(added, str):
        return added
    number = _number_of(pad)
    reason = _misfit(node, pad, number, rank)
    if reason is not None:
        return reason
    before, after = added[2:rank], added[rank + 2 :]
    if any(added[:2]) or any(added[rank : rank + 2]):
        return "it pads the batch or the channels"
    if min(added) < 0:
        return "it crops: negative pads"
    old = ir.attribute(node, "pads", None) or (0,) * (2 * (rank - 2))
    pads = [int(a) + b for a, b in zip(old, [*before, *after], strict=True)]
    if (reason := _too_wide(node, pads, rank)) is not None:
        return reason
    return lambda editor: _replace(editor, node, pad.inputs[0], pads)


def _pads_of(pad: Node, rank: int) -> list[int] | str:
    """The begins, then the ends, of all axes (Pad 2, 11, 18)."""
    if ir.attribute(pad, "mode", "constant") != "constant":
        return f"it pads in mode '{ir.attribute(pad, 'mode')}'"
    given = ir.attribute(pad, "pads", None) or ir.attribute(pad, "paddings", None)
    if given is None and len(pad.inputs) > 1:
        array = ir.array(pad.inputs[1])
        given = None if array is None else [int(n) for n in array.ravel()]
    if given is None:
        return "its pads are computed"
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        array = ir.array(pad.inputs[3])
        if array is None:
            return "its axes are computed"
        axes = [int(axis) % rank for axis in array.ravel()]
    if len(given) != 2 * len(axes):
        return "it has not two pads for each axis"
    full = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        full[axis], full[rank + axis] = int(given[place]), int(given[len(axes) + place])
    return full


def _number_of(pad: Node) -> float | None:
    """What it pads with; None where that is computed."""
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        array = ir.array(pad.inputs[2])
        return None if array is None or array.size != 1 else float(array.reshape(()))
    return float(ir.attribute(pad, "value", 0.0))


_NOT_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax"})


def _misfit(node: Node, pad: Node, number: float | None, rank: int) -> str | None:
    """Why a layer does not pad with that number by itself."""
    kind = ir.op(node)
    if rank < 3:
        return "it has no spatial axes"
    if ir.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        return "the layer pads by its auto_pad"
    if kind != "MaxPool" and number != 0:
        return f"{kind} pads with zeros, not with {number}"
    if kind != "Conv" and ir.attribute(node, "ceil_mode", 0):
        return "the pool rounds its size up, which leaves out what begins in its padding"
    uncounted = kind == "AveragePool" and not ir.attribute(node, "count_include_pad", 0)
    if uncounted and any(ir.attribute(node, "pads", None) or ()):
        return "AveragePool does not count its padding, but would count that of the Pad"
    if kind == "MaxPool":
        return _no_lowest(node, pad, number)
    return None


def _no_lowest(node: Node, pad: Node, number: float | None) -> str | None:
    """Why a MaxPool might take the number of the Pad; zero is no larger than what is >= 0."""
    x = pad.inputs[0]
    maker = None if x is None else x.producer()
    positive = maker is not None and ir.op(maker) in _NOT_NEGATIVE
    if number is None or not (number == -np.inf or (number <= 0 and positive)):
        return f"MaxPool pads with the lowest number, not with {number}"
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return "the indices of MaxPool count the padding"
    return None


def _too_wide(node: Node, pads: Sequence[int], rank: int) -> str | None:
    """Pools refuse padding as wide as their kernel."""
    kernel = ir.attribute(node, "kernel_shape", None)
    if ir.op(node) == "Conv" or kernel is None:
        return None
    if any(pad >= int(kernel[i % (rank - 2)]) for i, pad in enumerate(pads)):
        return "the padding would be as wide as the kernel"
    return None


def _replace(editor: Editor, node: Node, x: Value | None, pads: Sequence[int]) -> Sequence[Node]:
    attributes = {a.name: a.value for a in node.attributes.values() if a.name != "auto_pad"}
    attributes["pads"] = list(pads)
    if ir.op(node) == "AveragePool":
        attributes["count_include_pad"] = 1
    names = [str(value.name) for value in node.outputs]
    made = editor.node(
        node.op_type, [x, *node.inputs[1:]], outputs=names, attributes=attributes, like=node
    )
    editor.replace_node(node, [made], list(made.outputs))
    made.name, node.name = node.name, made.name
    return [made]


PAD = Rule("pad-into-layer", _LAYERS, _match, "Pad -> Conv | pool -> Conv | pool with pads")
RULES: tuple[Rule, ...] = (PAD,)
