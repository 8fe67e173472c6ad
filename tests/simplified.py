"""Simplifying a model in a test, and what must hold of any model afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from onnxslim import ir
from onnxslim.errors import ModelError
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.simplify.rules import RULES
from onnxslim.passes.simplify.simplify import Simplify
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, Pass, PassResult
from onnxslim.targets.base import Target

# One that takes all that rules can make, so that all of them are tried; but Swish, for which
# ONNX Runtime has no kernel.
EAGER = Target("test", fused=frozenset(rule.makes for rule in RULES if rule.makes) - {"Swish"})

ROUNDING = frozenset(rule.name for rule in RULES if not rule.exact)

SHAPES = 1 << 10  # bytes that may be added for targets of Reshape and the like


def run_pass(model: ir.Model, one: Pass) -> PassResult:
    with ThreadPoolExecutor(1) as executor:
        env = Environment(EAGER, executor)
        return one.run(model, Context(env, AnalysisManager(model, env), model))


def simplify(model: ir.Model, skip: Sequence[str] = ()) -> PassResult:
    return run_pass(model, Simplify(skip=tuple(skip)))


def fold(model: ir.Model) -> PassResult:
    return run_pass(model, Fold())


def applied_rounding(result: PassResult) -> frozenset[str]:
    """The rules that were applied and are not exact: none where outputs must be bit-equal."""
    return frozenset(name for name in ROUNDING if result.stats.get(name))


def interface(model: ir.Model) -> list[str]:
    """What others know of a model: ends with their declared types, and what is written on it."""
    graph = model.graph
    # before IR version 4 all weights were listed as inputs
    weights = set(graph.initializers) if (model.ir_version or 4) < 4 else set[str]()
    ends = [v for v in (*graph.inputs, *graph.outputs) if v.name not in weights]
    facts = [f"{v.name}: {v.type} {v.shape} {v.doc_string}" for v in ends]
    notes = [model.doc_string, graph.doc_string, graph.name, model.producer_name, model.domain]
    return [*facts, *map(str, notes), *map(str, sorted(model.metadata_props.items()))]


def count(model: ir.Model) -> int:
    """All nodes, those of graphs inside nodes and of functions too; but no constant outputs."""
    return sum(
        not (ir.op(node) == "Constant" and node.outputs[0].is_graph_output())
        for node in ir.nodes(model)
    )


def broken(before: ir.Model, after: ir.Model) -> str | None:
    """What does not hold of a simplified model, whatever it computes. `after` is simplified once
    more, which changes nothing where that holds."""
    try:
        ir.verify(after)
    except ModelError as error:
        return str(error)
    if interface(after) != interface(before):
        return f"the interface {interface(before)} became {interface(after)}"
    if count(after) > count(before):
        return f"{count(before)} nodes became {count(after)}"
    once = ir.checksum(after)
    again = simplify(after)
    if again.changed is not Aspect.NONE:
        return f"a second time changed something: {dict(again.stats)}"
    if ir.checksum(after) != once:
        return "a second time changed something and did not say so"
    return None
