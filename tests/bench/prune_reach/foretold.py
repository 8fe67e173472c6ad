"""The latency that what is left of each kind of work foretells.

Time of a dense layer falls with its multiply-accumulates, that of a depthwise convolution, an
activation, a sum or a pool with the numbers that it writes: a cut of 30 % of the channels leaves
half of the one and 70 % of the other. Each kind takes the share of the time before that ONNX
Runtime's profiler says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any

from onnxslim.ir import Model
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import profiled

Event = Mapping[str, Any]
_LEAST, _MOST, _SECONDS = 3, 30, 1.0
_DENSE = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
DENSE = "dense"
_ENDING = "_kernel_time"


@dataclass
class Work:
    """Of one kind: kernels, milliseconds of one run, and multiply-accumulates or numbers."""

    kernels: int = 0
    ms: float = 0.0
    amount: float = 0.0


def profile(model: Model, feed: Feed) -> Mapping[str, Work]:
    """The work by kind, on one thread.

    Raises RuntimeUnavailable where ONNX Runtime cannot run the model.
    """
    start, runs = perf_counter(), 0

    def enough(done: int) -> bool:
        nonlocal runs
        runs = done
        return done >= _MOST or (done >= _LEAST and perf_counter() - start > _SECONDS)

    _, events = profiled(model, feed, 1, enough)
    return by_kind([e for e in events if e["name"].endswith(_ENDING)], runs)


def by_kind(events: Sequence[Event], runs: int) -> Mapping[str, Work]:
    """The events of so many runs, added up; milliseconds and amounts are the mean of a run."""
    found: dict[str, Work] = defaultdict(Work)
    for event in events:
        kind, amount = _kind(event)
        work = found[kind]
        work.kernels += 1
        work.ms += event["dur"] / 1e3 / runs
        work.amount += amount / runs
    return found


def _kind(event: Event) -> tuple[str, float]:
    """What kind of work a kernel is, and how much of it."""
    op = str(event["args"]["op_name"])
    inputs, outputs = (_shapes(event, f"{side}_type_shape") for side in ("input", "output"))
    written = float(sum(prod(shape) for shape in outputs))
    if op not in _DENSE:
        return op, written
    if not op.endswith("Conv"):
        return DENSE, written * inputs[0][-1]
    weight = inputs[1]
    kind = DENSE if weight[1] > 1 or inputs[0][1] == 1 else "depthwise"
    return kind, written * prod(weight[1:])


def _shapes(event: Event, key: str) -> list[list[int]]:
    return [next(iter(typed.values())) for typed in event["args"].get(key, [])]


def foretold(before: Mapping[str, Work], after: Mapping[str, Work]) -> float:
    """Latency after over before, if each kind takes time in proportion to its work. A kind that
    was not there before takes what it takes."""
    total = sum(work.ms for work in before.values())
    left = sum(
        work.ms * after[kind].amount / work.amount if work.amount else work.ms
        for kind, work in before.items()
        if kind in after
    )
    new = sum(work.ms for kind, work in after.items() if kind not in before)
    return (left + new) / max(total, 1e-9)


def linear_share(before: Mapping[str, Work]) -> float:
    """The share of the time that is not dense layers'."""
    total = sum(work.ms for work in before.values())
    return 1 - before.get(DENSE, Work()).ms / max(total, 1e-9)
