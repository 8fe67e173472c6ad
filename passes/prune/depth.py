"""Residual blocks that hardly change what goes through them leave as a whole.

A block ends at an Add of a value and of something computed from it. Its influence is one minus the
cosine of what goes in and what comes out (Men et al. 2024, ShortGPT, eq. 1); those of the least are
tried, and the error of the model's outputs on samples held out decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.distance import distance, distance_to, outputs_of
from onnxslim.analyses.held_out import split
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.shapes import ShapeTable
from onnxslim.ir import Array, Editor, Model, Value
from onnxslim.passes.prune.mask import makers
from onnxslim.passes.refit.refit import refit
from onnxslim.passes.refit.spot import spot_of
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_session

_SAMPLES = 64
_TRIED = 4  # blocks of the least influence, each time
_REACH = 2000  # nodes that a block may have


@dataclass(frozen=True)
class Block:
    """What lies between `skip` and `out`, which has its shape; names of values."""

    skip: str
    out: str


def blocks(model: Model, shapes: ShapeTable) -> list[Block]:
    """The residual blocks with a layer in them whose result may be what goes in."""
    found: list[Block] = []
    for node in model.graph:
        if ir.op(node) != "Add" or node.outputs[0].is_graph_output():
            continue
        out = node.outputs[0]
        for skip, branch in (node.inputs, reversed(node.inputs)):
            if skip is None or branch is None or ir.constant(skip) is not None:
                continue
            same = shapes.sizes(skip) is not None and shapes.sizes(skip) == shapes.sizes(out)
            if same and _computed_from(branch, skip):
                found.append(Block(str(skip.name), str(out.name)))
    return found


def _computed_from(branch: Value, skip: Value) -> bool:
    """Whether a value depends on another, through at least one layer."""
    todo, seen, layers, met = [branch], {branch}, 0, False
    while todo and len(seen) < _REACH:
        value = todo.pop()
        if value is skip:
            met = True
            continue
        node = value.producer()
        if node is None:
            continue
        layers += isinstance(linear(node), Linear)
        before = {v for v in node.inputs if v is not None} - seen
        seen |= before
        todo += before
    return met and layers > 0


def drop(model: Model, block: Block) -> None:
    """Let what goes into a block be what comes out."""
    nodes = makers(model)
    out = next(v for v in nodes[block.out].outputs if v.name == block.out)
    made = nodes.get(block.skip)
    values = model.graph.inputs if made is None else made.outputs
    skip = next(v for v in values if v.name == block.skip)
    editor = Editor(model)
    editor.rewire(list(out.uses()), skip)
    editor.remove_dead()


def influences(model: Model, found: Sequence[Block], samples: Samples, threads: int) -> list[float]:
    """1 - cos of what goes in and comes out, the mean over samples."""
    names = list(dict.fromkeys(name for block in found for name in (block.skip, block.out)))
    inputs = {str(value.name) for value in model.graph.inputs}
    wanted = [name for name in names if name not in inputs]
    session = open_session(model, extra_outputs=wanted, threads=threads)
    sums = np.zeros(len(found))
    for feed in samples:
        seen = {**feed, **session.run(feed, wanted)}
        for at, block in enumerate(found):
            sums[at] += 1 - _cosine(seen[block.skip], seen[block.out])
    return [float(total) / max(len(samples), 1) for total in sums]


def _cosine(one: Array, two: Array) -> float:
    a, b = one.astype(np.float64), two.astype(np.float64)
    return float(np.vdot(a, b)) / max(float(np.linalg.norm(a)) * float(np.linalg.norm(b)), 1e-30)


def drop_blocks(
    reference: Model, model: Model, shapes: ShapeTable, env: Environment, limit: float
) -> list[str]:
    """Drop blocks and fit the layers after them again, while the outputs' relative squared error
    on samples held out is at most `limit`. The names of the outputs of those that left.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    assert env.calib is not None
    _, out = split(len(env.calib))
    if not out:
        return []
    count = min(_SAMPLES, len(out))
    held = env.calib.take([out[i * len(out) // count] for i in range(count)])
    wanted = outputs_of(reference, held, env.threads)
    left: list[str] = []
    while known := blocks(model, shapes):
        found = zip(influences(model, known, held, env.threads), known, strict=True)
        least = [block for _, block in sorted(found, key=lambda pair: pair[0])[:_TRIED]]
        best = min(least, key=lambda block: _trial(model, block, wanted, held))
        start = ir.snapshot(model)
        drop(model, best)
        refit(reference, model, _layers(model), env)
        error = distance(reference, model, held, env.threads)
        if error is None or not error <= limit:
            ir.restore(model, start)
            break
        left.append(best.out)
    return left


def _trial(model: Model, block: Block, wanted: Sequence[dict[str, Array]], held: Samples) -> float:
    copy = ir.snapshot(model)
    drop(copy, block)
    error = distance_to(wanted, copy, held, 1)
    return np.inf if error is None else error


def _layers(model: Model) -> list[str]:
    """The outputs of layers that can be fitted, in the order of the model."""
    found = (spot_of(node) for node in model.graph if isinstance(linear(node), Linear))
    return list(dict.fromkeys(spot.output for spot in found if spot is not None))
