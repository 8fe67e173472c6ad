"""How the weight of a layer answers to an affine map of its input channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, TensorProtocol
from onnxslim.passes.simplify.fuse.matmul import Dense, changed, dense, set_weight, shared_weight


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight that nothing else reads."""

    node: Node
    tensor: TensorProtocol  # the weight as it is stored
    channels: int  # of the input
    channel_axis: int  # of the input, from the end
    takes_offset: bool
    bias: Array  # as it is added, [1] or [outputs], float64
    groups: int = 1
    input_axis: int = 1  # of the weight
    bias_at: tuple[Node, int] | None = None  # where the bias is read; None: nowhere yet

    def scale(self, factor: Array) -> TensorProtocol:
        """The weight for an input without this factor, which is [1] or [channels].

        Raises:
            EditError: it is beyond the range of its type, or too small for it.
        """
        if factor.size == 1:
            return changed(self.tensor, factor, lambda weight: weight * factor.reshape(()))
        return changed(self.tensor, factor, lambda weight: self._by_input(weight, factor))

    def respond(self, offset: Array) -> Array:
        """What a constant input adds to each output channel, where nothing is padded."""
        full = np.broadcast_to(offset, (self.channels,))
        summed = self._by_input(self.tensor.numpy(), full.astype(np.float64))
        outputs = 0 if ir.op(self.node) == "Conv" else 1 - self.input_axis
        result: Array = summed.sum(axis=tuple(i for i in range(summed.ndim) if i != outputs))
        alpha = float(ir.attribute(self.node, "alpha", 1.0)) if ir.op(self.node) == "Gemm" else 1.0
        return result * alpha

    def _by_input(self, weight: Array, vector: Array) -> Array:
        """Multiply by one number per input channel; of a Conv in groups, those of its group."""
        rest = (1,) * (weight.ndim - 2)
        if ir.op(self.node) == "Conv":
            rows = np.repeat(vector.reshape(self.groups, -1), weight.shape[0] // self.groups, 0)
            by_group: Array = weight * rows.reshape(*rows.shape, *rest)
            return by_group
        shape = (-1, 1) if self.input_axis == 0 else (1, -1)
        result: Array = weight * vector.reshape(*shape, *rest)
        return result

    def set_bias(self, editor: Editor, bias: Array) -> Node:
        """Give the layer the bias, [outputs]; the node that is the layer then."""
        if self.bias_at is not None:
            node, index = self.bias_at
            before = ir.constant(node.inputs[index])
            rank = 1 if before is None else max(1, len(before.shape))
            set_weight(editor, node, index, bias.reshape((1,) * (rank - 1) + (-1,)))
            return self.node
        old, name = self.node, str(self.node.outputs[0].name)
        value = editor.initializer(editor.scope_of(old), f"{name}.bias", bias)
        attributes = {a.name: a.value for a in old.attributes.values() if a.name != "beta"}
        made = editor.node(
            old.op_type, [*old.inputs[:2], value], outputs=[name], attributes=attributes, like=old
        )
        editor.replace_node(old, [made], [made.outputs[0]])
        made.name, old.name = old.name, made.name
        return made


def layer_behind(node: Node) -> Layer | None:
    """A reader as a layer that can take an affine map of its input, else None."""
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    kind = ir.op(node)
    if kind in ("Conv", "ConvTranspose"):
        return _spatial(node)
    if kind == "Gemm" and not ir.attribute(node, "transA", 0):
        return _dense(dense(node))
    return _dense(_with_bias(node)) if kind == "MatMul" else None


def _with_bias(node: Node) -> Dense | str | None:
    """A MatMul, with the Add behind it where that is all that reads it."""
    uses = node.outputs[0].uses()
    if len(uses) == 1 and not node.outputs[0].is_graph_output():
        use = next(iter(uses))
        bias = 1 - use.idx
        if ir.op(use.node) == "Add" and ir.constant(use.node.inputs[bias]) is not None:
            with_bias = dense(node, (use.node, bias)) if use.node.graph is node.graph else None
            if isinstance(with_bias, Dense):
                return with_bias
    return dense(node)


def _dense(found: Dense | str | None) -> Layer | None:
    if not isinstance(found, Dense):
        return None
    bias: Array = np.zeros(1)
    if found.bias is not None:
        vector = ir.array(found.bias[0].inputs[found.bias[1]])
        bias = bias if vector is None else vector.astype(np.float64).ravel()
    gemm = ir.op(found.node) == "Gemm"
    takes = found.beta == 1 if gemm else found.bias is not None
    return Layer(
        found.node, found.tensor, found.sizes[0], -1, takes, bias,
        input_axis=1 if found.transposed else 0, bias_at=found.bias,
    )  # fmt: skip


def _spatial(node: Node) -> Layer | None:
    tensor = ir.constant(node.inputs[1])
    if tensor is None or shared_weight(node, 1) is not None:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if tensor.dtype.numpy().kind != "f" or len(shape) < 3:
        return None
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(1) if given is None else ir.array(given)
    groups = int(ir.attribute(node, "group", 1))
    conv = ir.op(node) == "Conv"
    return Layer(
        node,
        tensor,
        shape[1] * groups if conv else shape[0],
        1 - len(shape),
        conv and bias is not None and not _pads(node),
        np.zeros(1) if bias is None else bias.astype(np.float64),
        groups,
        1 if conv else 0,
        None if given is None else (node, 2),
    )


def _pads(node: Node) -> bool:
    """Whether a Conv may read zeros beside its input."""
    if ir.attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return True
    if ir.attribute(node, "auto_pad", "NOTSET") == "VALID":
        return False
    return any(ir.attribute(node, "pads", ()) or ())
