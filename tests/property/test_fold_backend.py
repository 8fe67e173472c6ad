"""Over ONNX's own backend test models: fold leaves each valid, bit-equal, and nothing to fold."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.pipeline.analysis import Aspect
from tests.corpus import RUN_AT_LEAST, Corpus, fix_inputs, why_wrong
from tests.simplified import fold


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
