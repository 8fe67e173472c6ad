"""The shapes that values of the main graph have in one run; the values themselves are not kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import DataType, Model, Value
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session

Shapes = Mapping[str, tuple[int, ...]]

_NO_SHAPE = frozenset(dtype for dtype in DataType if dtype.name.startswith("FLOAT8"))
"""What ONNX Runtime's Shape does not read."""


def observed_shapes(model: Model, feed: Feed, threads: int = 1) -> Shapes:
    """Name -> shape of every tensor of the main graph in a run with this feed.

    A Shape node per value is the only output of the run, so that its memory is the model's own.
    Values that are no tensors, or that ONNX Runtime cannot tell the shape of, are left out.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    tensors = {name: fed for name, fed in feed.items() if hasattr(fed, "shape")}  # no sequences
    fed = {name: tuple(int(n) for n in array.shape) for name, array in tensors.items()}
    values = [v for v in main_values(model) if v.name not in fed and _has_shape(v)]
    if not values or "" not in model.opset_imports:
        return fed
    try:
        return fed | _run(model, values, feed, threads)
    except RuntimeUnavailable:  # one value without a known type is no tensor, or cannot be read
        known = [v for v in values if isinstance(v.type, ir.TensorType)]
        return fed | _run(model, known, feed, threads) if known else fed


def main_values(model: Model) -> Iterable[Value]:
    """The named results of the nodes of the main graph, in order."""
    return (value for node in model.graph for value in node.outputs if value.name)


def _has_shape(value: Value) -> bool:
    maker, dtype = value.producer(), value.dtype
    if dtype is None and maker is not None and ir.op(maker) == "QuantizeLinear":
        zero = maker.inputs[2] if len(maker.inputs) > 2 else None
        dtype = None if zero is None else zero.dtype
    return dtype not in _NO_SHAPE and (value.type is None or isinstance(value.type, ir.TensorType))


def _run(model: Model, values: list[Value], feed: Feed, threads: int) -> dict[str, tuple[int, ...]]:
    copy = ir.snapshot(model)
    editor = ir.Editor(copy)
    twins = {v.name: v for v in main_values(copy)}
    for twin in twins.values():
        twin.shape = None  # a claim; ONNX Runtime would take the answer from there
    names: dict[str, str] = {}
    copy.graph.outputs.clear()
    for value in values:
        node = editor.node("Shape", [twins[value.name]], outputs=["shape_seen"])
        copy.graph.append(node)
        copy.graph.outputs.append(node.outputs[0])
        names[str(node.outputs[0].name)] = str(value.name)
    shapes = open_session(copy, threads=threads, optimize="basic").run(feed)
    return {names[output]: tuple(int(n) for n in shape) for output, shape in shapes.items()}
