"""How much of a model became integers, in sentences: `int8: 52 of 53 Conv; Conv_7 float: why`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.quant.audit.audit import Audit, Place
from onnxslim.pipeline.base import Declined, Layer

NAMED = 3
"""Layers in float that are named with their reason; the report lists all as declined."""

_PLACES: dict[Place, str] = {
    "end": "at inputs and outputs of the model",
    "border": "between integers and float operators",
    "constant": "on constants",
    "idle": "back to back",
}


def coverage(
    before: Model, rows: Sequence[Layer], declined: Sequence[Declined], numbers: str = "int8"
) -> str:
    """Per operator the layers with weights in `numbers`, of those that have a weight, and the first
    of those that stayed in float. `before` is the model whose nodes the rows name."""
    ops = {ir.label(node): ir.op(node) for node in ir.nodes(before)}
    done = Counter(row.op for row in rows)
    rest = [d for d in declined if d.node in ops]
    total = done + Counter(ops[d.node] for d in rest)
    counts = ", ".join(f"{done[op]} of {total[op]} {op}" for op in sorted(total))
    return "; ".join([f"{numbers}: {counts}", *_floats(rest)])


def _floats(rest: Sequence[Declined]) -> Iterator[str]:
    for declined in rest[:NAMED]:
        yield f"{declined.node} float: {declined.reason}"
    if len(rest) > NAMED:
        yield f"{len(rest) - NAMED} more in float"


def conversions(audit: Audit) -> str | None:
    """Where the Q and DQ lie that ONNX Runtime did not make part of a kernel, if any."""
    if not audit.q_and_dq:
        return None
    where = (f"{audit.places[p]} {text}" for p, text in _PLACES.items() if audit.places.get(p))
    return f"QuantizeLinear and DequantizeLinear that run: {', '.join(where)}"
