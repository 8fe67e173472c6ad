"""How long each kernel of a model takes, by ONNX Runtime's own profiler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter
from typing import Any

from onnxslim import ir
from onnxslim.ir import Model, Node
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import profiled

SECONDS = 1.0
"""For the runs of one model."""

_LEAST, _MOST = 4, 30
_ENDING = "_kernel_time"


@dataclass(frozen=True)
class Kernel:
    """A node of the optimized graph, and how long it takes."""

    node: Node
    ms: float  # the lower quartile of the runs: other work on the machine only adds


def kernel_times(
    model: Model, feed: Feed, threads: int = 1, seconds: float = SECONDS
) -> list[Kernel]:
    """The kernels of the main graph in the order in which they run, subgraphs in the time of the
    node that has them; none where the profile does not tell which kernel is which.

    Raises RuntimeUnavailable where ONNX Runtime cannot run the model.
    """
    start = perf_counter()

    def enough(runs: int) -> bool:
        return runs >= _MOST or (runs >= _LEAST and perf_counter() - start > seconds)

    optimized, events = profiled(model, feed, threads, enough)
    nodes = list(optimized.graph)
    rounds = rounds_of(
        [(node.name, node.op_type) for node in nodes],
        [e for e in events if e["name"].endswith(_ENDING)],
        nested=len(list(ir.nodes(optimized))) > len(nodes),
    )
    times = [_quartile(column) for column in zip(*rounds[1:], strict=True)]
    return [Kernel(node, ms) for node, ms in zip(nodes, times, strict=False)]


def rounds_of(
    names: Sequence[tuple[str | None, str]],
    events: Iterable[Mapping[str, Any]],
    *,
    nested: bool = False,
) -> list[list[float]]:
    """Milliseconds of each kernel by runs. The profiler names a kernel by its node, and tells of
    them in the order in which they end, which is that of the graph; before the node that has a
    subgraph (`nested`) of those in it."""
    rounds: list[list[float]] = []
    row: list[float] = []
    for event in events:
        if _tells_of(event, names[len(row)]):
            row.append(event["dur"] / 1e3)
        elif not nested:
            return []
        if len(row) == len(names):
            rounds.append(row)
            row = []
    return [] if row else rounds


def _tells_of(event: Mapping[str, Any], node: tuple[str | None, str]) -> bool:
    name, op = node
    said, about = event["name"].removesuffix(_ENDING), event["args"]
    name = name or f"{op}_{about['node_index']}"
    return (said, about["op_name"]) == (name, op)


def _quartile(values: Sequence[float]) -> float:
    return quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]
