"""Over ONNX's own backend test models: fold leaves each valid, bit-equal, and nothing to fold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.errors import ModelError
from onnxslim.passes.fold.fold import Fold
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.targets.base import Target
from tests.corpus import RUN_AT_LEAST, Corpus, equal, run


def fold(model: ir.Model) -> PassResult:
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor)
        return Fold().run(model, Context(env, AnalysisManager(model, env), model))


def test_backend_models_stay_valid_and_equal() -> None:
    """Each model as it is, and with its inputs made constants, so that all of it can be folded."""
    corpus = Corpus()
    wrong: dict[str, str] = {}
    folded = ran = 0
    for name, proto, feed, before in corpus.runnable():
        ran += 1
        for constant in (False, True):
            model = ir.load(proto)
            if constant:
                fix_inputs(model, feed)
            result = fold(model)
            folded += int(result.stats["folded"])
            reason = why_wrong(model, feed, before)
            if reason is None and fold(model).changed is not Aspect.NONE:
                reason = "a second time changed something"
            if reason is not None:
                wrong[f"{name} {'constant' if constant else ''}"] = reason
    assert wrong == {}
    assert ran >= RUN_AT_LEAST
    assert folded >= 1000


def fix_inputs(model: ir.Model, feed: dict[str, Any]) -> None:
    """Give every tensor input its value for good."""
    editor = ir.Editor(model)
    for value in list(model.graph.inputs):
        fed = feed.get(str(value.name))
        if type(fed) is np.ndarray and value.uses() and not value.is_graph_output():
            array: ir.Array = fed
            fixed = editor.initializer(model.graph, f"{value.name}_fixed", array)
            editor.rewire([(use.node, use.idx) for use in value.uses()], fixed)


def why_wrong(model: ir.Model, feed: dict[str, Any], before: list[Any]) -> str | None:
    try:
        ir.verify(model)
    except ModelError as error:
        return str(error)
    after = run(ir.to_bytes(model), feed)
    if after is None:
        return "it cannot be run any more"
    if equal(before, after) or (uses_float16(model) and close(before, after)):
        return None
    return "the outputs differ"


def uses_float16(model: ir.Model) -> bool:
    return any(t.dtype == ir.DataType.FLOAT16 for t in ir.infer_types(model).values())


def close(before: list[Any], after: list[Any]) -> bool:
    """ONNX Runtime computes float16 as float32 between casts, and drops casts between neighbours:
    with a copy less between two nodes a rounding to float16 is left out, which is half an ulp of
    2^-11 at each of at most four places before outputs of magnitude one."""
    pairs = zip(before, after, strict=True)
    return all(np.abs(a.astype(np.float64) - b).max(initial=0) <= 2 * 2.0**-11 for a, b in pairs)
