"""Models side by side, as a person reads them: ends, operators, weights; and nodes as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from onnxslim import ir
from onnxslim.ir import Model, TensorType, Value
from onnxslim.report.footprint import count_nodes
from onnxslim.report.table import size


@dataclass(frozen=True)
class Overview:
    """What one model is, in numbers and words."""

    title: str
    version: str  # of the operators and of the format
    inputs: Mapping[str, str]  # name -> type and shape
    outputs: Mapping[str, str]
    nodes: Mapping[str, int]  # by operator
    weight_bytes: int


def overview(model: Model, title: str) -> Overview:
    """The overview of a model."""
    defaults = model.graph.initializers
    return Overview(
        title,
        f"opset {ir.opset(model) or '-'}, IR version {model.ir_version}",
        {str(v.name): describe(v) for v in model.graph.inputs if v.name not in defaults},
        {str(v.name): describe(v) for v in model.graph.outputs},
        count_nodes(model),
        ir.weight_bytes(model),
    )


def describe(value: Value) -> str:
    """The type and shape of a value: `float32 [N, 3, 224, 224]`."""
    if not isinstance(value.type, TensorType):
        return "" if value.type is None else str(value.type)
    kind = "string" if value.dtype == ir.DataType.STRING else value.type.dtype.name.lower()
    kind = "float32" if kind == "float" else kind
    return f"{kind} {shape_text(value)}".rstrip()


def shape_text(value: Value) -> str:
    """The shape as `[N, 3, ?]`; nothing where it is not declared."""
    if value.shape is None:
        return ""
    dims = (d if isinstance(d, int) else d.value for d in value.shape)
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def overview_table(models: Sequence[Overview], seconds: float | None = None) -> Table:
    """One column per model; a count that differs from the first model's stands out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for model in models:
        table.add_column(Text(model.title), justify="right", overflow="fold")
    table.add_row("versions", *(m.version for m in models), end_section=True)
    _rows(table, "input", [m.inputs for m in models])
    _rows(table, "output", [m.outputs for m in models])
    for op in sorted({op for m in models for op in m.nodes}):
        counts = [m.nodes.get(op, 0) for m in models]
        table.add_row(Text(op), *(_count(c, counts[0]) for c in counts))
    totals = [sum(m.nodes.values()) for m in models]
    table.add_section()
    table.add_row("nodes", *(_count(t, totals[0]) for t in totals), style="bold")
    table.add_row("weights", *(size(m.weight_bytes) for m in models), style="bold")
    if seconds is not None:
        table.add_row("seconds", *("" for _ in models[1:]), f"{seconds:.2f}")
    return table


def _rows(table: Table, what: str, ends: Sequence[Mapping[str, str]]) -> None:
    names = list(dict.fromkeys(name for of_model in ends for name in of_model))
    for index, name in enumerate(names):
        cells = (Text(of_model.get(name, "")) for of_model in ends)
        table.add_row(Text(f"{what} {name}"), *cells, end_section=index == len(names) - 1)


def _count(count: int, first: int) -> Text:
    style = "" if count == first else ("green" if count < first else "yellow")
    return Text(str(count), style=style)


def nodes_csv(model: Model) -> str:
    """Every node as a row, with the type and shape of its outputs; further outputs below it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["NodeName", "OpType", "OutputDtype", "OutputShape"])
    known = ir.infer_types(model)
    for node in ir.nodes(model):
        head = [ir.label(node), ir.op(node)]
        outputs: list[Value | None] = [*node.outputs] or [None]
        for value in outputs:
            writer.writerow([*head, *_typed(value, known)])
            head = ["", ""]
    return stream.getvalue()


def _typed(value: Value | None, known: Mapping[str, ir.Inferred]) -> list[str]:
    if value is None:
        return ["", ""]
    found = known.get(str(value.name))
    if found is None or found.dtype is None:
        return ["" if value.dtype is None else value.dtype.name.lower(), shape_text(value)]
    dims = found.shape
    shape = "" if dims is None else str(["?" if d is None else d for d in dims])
    return [found.dtype.name.lower(), shape.replace("'", "")]
