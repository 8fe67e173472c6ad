"""Taps that give the range of a tensor and not the tensor: ONNX Runtime reduces it itself.

x -> ReduceMin, ReduceMax, ReduceMean over all axes but the batch and the channels, Shape
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.observe import channel_axis
from onnxslim.analyses.tensor_stats import TensorRange, range_of
from onnxslim.ir import Array, DataType, Editor, Model, Value

_REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceMean")
_AXES_ARE_INPUTS = 18  # the opset since which all three take them so


@dataclass(frozen=True)
class Reduced:
    """The outputs that stand for a tensor. Where it has no axis to reduce, it is its own."""

    tensor: str
    axis: int  # of the channels, 1 or -1
    outputs: tuple[str, ...]  # least, greatest and mean [batch, C], and the shape; or the tensor

    @property
    def shape(self) -> str | None:
        """The output that is no part of the tensor."""
        return self.outputs[3] if len(self.outputs) > 1 else None

    def range(self, found: Mapping[str, Array], count: int) -> list[TensorRange | None]:
        """Of each of `count` stacked samples; None where it is empty or not all finite.

        Means are those that ONNX Runtime computes in float32.
        """
        if len(self.outputs) == 1:
            return [self._of_itself(part) for part in np.split(found[self.tensor], count)]
        low, high, mean, shape = (found[name] for name in self.outputs)
        numbers = prod(shape.tolist()) // count
        parts = zip(*(np.split(each, count) for each in (low, high, mean)), strict=True)
        return [self._of_parts(numbers, *part) for part in parts]

    def _of_itself(self, x: Array) -> TensorRange | None:
        x = x.reshape(1) if x.ndim == 0 else x
        rest = tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
        if not np.isfinite(x).all() or not x.size:
            return None
        mean = x.mean(axis=rest, dtype=np.float64)
        return range_of(x.size, x.min(axis=rest), x.max(axis=rest), mean, self.axis)

    def _of_parts(self, numbers: int, low: Array, high: Array, mean: Array) -> TensorRange | None:
        known = numbers and all(np.isfinite(each).all() for each in (low, high, mean))
        if not known:
            return None
        means = mean.mean(axis=0, dtype=np.float64)
        return range_of(numbers, low.min(axis=0), high.max(axis=0), means, self.axis)


def add_reductions(model: Model, around: Mapping[Value, int | None]) -> list[Reduced]:
    """Give a model further outputs for the tensors of float32 whose rank is known.

    `around`: tensor -> where the operators around it have their channels, if they say so.
    """
    editor, made = Editor(model), list[Reduced]()
    inferred = ir.infer_types(model, data_propagation=False)
    for value, side in around.items():
        known = inferred.get(str(value.name))
        if known is None or known.shape is None or known.dtype != DataType.FLOAT:
            continue
        rank = len(known.shape)
        axis = channel_axis(rank, side)
        axes = [i for i in range(1, rank) if i != axis % rank]
        if value.producer() is not None:
            value.shape = None  # a claim; ONNX Runtime would take the answer of Shape from there
        outputs = _reduce(editor, value, axes) if axes else [value]
        have = model.graph.outputs
        have.extend(output for output in outputs if output not in have)
        made.append(Reduced(str(value.name), axis, tuple(str(v.name) for v in outputs)))
    return made


def _reduce(editor: Editor, value: Value, axes: Sequence[int]) -> list[Value]:
    graph = editor.model.graph
    inputs, attributes = [value], {"keepdims": 0, "axes": list(axes)}
    if (ir.opset(editor.model) or 0) >= _AXES_ARE_INPUTS:
        del attributes["axes"]
        inputs.append(editor.initializer(graph, "axes", np.array(axes, np.int64)))
    nodes = [
        editor.node(op, inputs, outputs=[f"{value.name}.{op}"], attributes=attributes)
        for op in _REDUCTIONS
    ]
    nodes.append(editor.node("Shape", [value], outputs=[f"{value.name}.Shape"]))
    graph.extend(nodes)
    return [node.outputs[0] for node in nodes]
