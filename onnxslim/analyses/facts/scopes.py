"""What is known of inputs of models and bodies, and of the outputs of If."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxslim import ir
from onnxslim.analyses.facts.dims import Dim, Expr, named
from onnxslim.analyses.facts.fact import UNKNOWN, Fact
from onnxslim.ir import DataType, Node, TensorType, Value

_NO_NAMES = frozenset({"", "?", "-1", "none", "unknown", "unk", "dynamic", "any"})
"""What exporters write for any size that they do not know: not the same size each time."""


def declared(value: Value, fresh: Callable[[bool], Expr]) -> Fact:
    """An input of the model, believed as declared; a nameless size is an unknown of its own."""
    if not isinstance(value.type, TensorType):
        return UNKNOWN
    if value.shape is None:
        return Fact(value.type.dtype)
    dims: list[Dim] = []
    for dim in value.shape:
        if isinstance(dim, int):
            dims.append(dim if dim >= 0 else fresh(True))
        else:
            name = str(dim.value or "")
            dims.append(fresh(True) if name.lower() in _NO_NAMES else named(name))
    return Fact(value.type.dtype, tuple(dims))


def branch_outputs(node: Node) -> Sequence[Value]:
    """The outputs of both branches of an If, one branch after the other."""
    if node.op_type != "If" or ir.op(node) != "If":
        return ()
    return [value for graph in ir.subgraphs(node) for value in graph.outputs]


def merged(facts: Sequence[Fact], count: int, fresh: Callable[[bool], Expr]) -> list[Fact]:
    """The outputs of an If: what both branches agree upon."""
    if len(facts) != 2 * count:
        return [UNKNOWN] * count
    return [_merge(facts[i], facts[count + i], fresh) for i in range(count)]


def _merge(one: Fact, two: Fact, fresh: Callable[[bool], Expr]) -> Fact:
    dtype = one.dtype if one.dtype == two.dtype else None
    if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
        return Fact(dtype)
    shape = tuple(a if a == b else fresh(True) for a, b in zip(one.shape, two.shape, strict=True))
    if one.content is None or two.content is None or one.shape != two.shape:
        return Fact(dtype, shape)
    pairs = zip(one.content, two.content, strict=True)
    return Fact(dtype, shape, tuple(a if a == b else fresh(False) for a, b in pairs))


def formal(value: Value, holder: Node, fact_of: Callable[[Value | None], Fact]) -> Fact:
    """A formal input of a body of Loop or Scan; what the body itself declares is not believed."""
    graph = value.graph
    index = next((i for i, v in enumerate(graph.inputs) if v is value), None) if graph else None
    if index is None:
        return UNKNOWN
    if ir.op(holder) == "Loop":
        if index < 2:
            return Fact(DataType.BOOL if index else DataType.INT64, ())
        return Fact(fact_of(holder.inputs[index]).dtype) if index < len(holder.inputs) else UNKNOWN
    if ir.op(holder) == "Scan" and len(holder.inputs) == len(list(graph.inputs if graph else ())):
        return _scanned(index, holder, fact_of)
    return UNKNOWN


def _scanned(index: int, holder: Node, fact_of: Callable[[Value | None], Fact]) -> Fact:
    """A state, or a slice of what is scanned: the shape without the axis."""
    fact = fact_of(holder.inputs[index])
    count = int(ir.attribute(holder, "num_scan_inputs", 0))
    first = len(holder.inputs) - count
    if index < first or fact.shape is None:
        return Fact(fact.dtype)
    axes = ir.attribute(holder, "scan_input_axes", [0] * count)
    axis = int(axes[index - first])
    rank = len(fact.shape)
    if not -rank <= axis < rank:
        return UNKNOWN
    return Fact(fact.dtype, (*fact.shape[: axis % rank], *fact.shape[axis % rank + 1 :]))
