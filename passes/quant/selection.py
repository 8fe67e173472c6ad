"""Which nodes the user keeps out, by operator and by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model, Node
from onnxslim.pipeline.options import nearest


def check_selection(model: Model, ops: Sequence[str], skip: Sequence[str]) -> None:
    """Raises OptionError for an operator or a name that the model does not have."""
    nodes = list(ir.nodes(model))
    present = {ir.op(node) for node in nodes}
    for op in ops:
        if op not in present:
            raise OptionError(f"quant: ops: the model has no operator {op!r}{nearest(op, present)}")
    for pattern in skip:
        if not any(fnmatchcase(node.name or "", pattern) for node in nodes):
            raise OptionError(f"quant: skip: no node of the model is called {pattern!r}")


def excluded_names(model: Model, ops: Sequence[str], skip: Sequence[str]) -> frozenset[str]:
    """The first outputs of the nodes to leave in float, in all scopes."""
    return frozenset(
        first_output(node)
        for node in ir.nodes(model)
        if first_output(node)
        and ((ops and ir.op(node) not in ops) or any(fnmatchcase(node.name or "", p) for p in skip))
    )


def first_output(node: Node) -> str:
    """The name of the first output that is not absent: unique in the model."""
    return next((str(value.name) for value in node.outputs if value.name), "")
