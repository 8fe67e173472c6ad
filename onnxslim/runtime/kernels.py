"""How long each kernel of a model takes, by ONNX Runtime's own profiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The kernels in the order in which they run; none where the graph has subgraphs, or where
    the profile does not tell which kernel is which.

    Raises RuntimeUnavailable where ONNX Runtime cannot run the model.
    """
    start = perf_counter()

    def enough(runs: int) -> bool:
        return runs >= _MOST or (runs >= _LEAST and perf_counter() - start > seconds)

    optimized, events = profiled(model, feed, threads, enough)
    nodes = list(optimized.graph)
    if len(list(ir.nodes(optimized))) > len(nodes):
        return []
    rounds = _rounds(nodes, [e for e in events if e["name"].endswith(_ENDING)])
    times = [_quartile(column) for column in zip(*rounds[1:], strict=True)]
    return [Kernel(node, ms) for node, ms in zip(nodes, times, strict=False)]


def _rounds(nodes: Sequence[Node], events: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Milliseconds of each kernel by runs. The profiler names a kernel by its node, and tells of
    them in the order in which they run, which is that of the graph."""
    names = [(node.name, node.op_type) for node in nodes]
    rounds: list[list[float]] = []
    for start in range(0, len(events), len(names) or 1):
        some = events[start : start + len(names)]
        if len(some) < len(names) or not all(map(_tells_of, some, names)):
            return []
        rounds.append([e["dur"] / 1e3 for e in some])
    return rounds


def _tells_of(event: Mapping[str, Any], node: tuple[str | None, str]) -> bool:
    name, op = node
    said, about = event["name"].removesuffix(_ENDING), event["args"]
    name = name or f"{op}_{about['node_index']}"
    return (said, about["op_name"]) == (name, op)


def _quartile(values: Sequence[float]) -> float:
    return quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]
