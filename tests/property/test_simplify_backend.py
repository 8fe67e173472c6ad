"""Over ONNX's own backend test models: simplify leaves each valid, equal, and nothing to do."""

from __future__ import annotations

from onnxslim import ir
from tests.corpus import RUN_AT_LEAST, Corpus, fix_inputs, why_wrong
from tests.simplified import applied_rounding, broken, simplify

# A model is one operator, or one written out as about twenty elementary ones. Each of them and
# the fused one round to a few units in the last place of numbers no larger than the output or one.
ROUNDINGS = 64


def test_backend_models_stay_valid_and_equal() -> None:
    """Each model as it is; those that run also with their inputs made constants."""
    corpus = Corpus()
    wrong: dict[str, str] = {}
    ran: set[str] = set()
    applied = 0
    for name, proto, feed, before in corpus.runnable():
        ran.add(name)
        for constant in (False, True):
            original, model = ir.load(proto), ir.load(proto)
            if constant:
                fix_inputs(model, feed)
                fix_inputs(original, feed)
            result = simplify(model)
            applied += sum(int(count) for count in result.stats.values())
            roundings = ROUNDINGS if applied_rounding(result) else 0
            reason = why_wrong(model, feed, before, roundings) or broken(original, model)
            if reason is not None:
                wrong[f"{name}{' constant' if constant else ''}"] = f"{reason} {dict(result.stats)}"
    for name in corpus.models.keys() - ran:  # no kernel for them, or other outputs each time
        original, model = ir.load(corpus.models[name]), ir.load(corpus.models[name])
        simplify(model)
        if (reason := broken(original, model)) is not None:
            wrong[name] = reason
    assert wrong == {}
    assert len(ran) >= RUN_AT_LEAST
    assert applied >= 5000
