"""Applying fusion rules to small models, and how far the outputs may move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.simplify.fuse import RULES
from onnxslim.rewrite import Outcome, apply
from onnxslim.runtime.samples import Feed
from tests.quantizing import feeds, outputs

# Sums of at most 36 products, whose order and factors differ: each a few roundings of numbers
# that are at most some times as large as the largest output.
LIMIT = 64.0

BY_NAME = {rule.name: rule for rule in RULES}


def fuse(model: Model, *names: str) -> Outcome:
    """Apply the rules of these names, by default all, in place."""
    editor = Editor(model)
    outcome = apply(editor, [BY_NAME[name] for name in names] if names else RULES)
    editor.remove_dead()
    ir.verify(model)
    return outcome


def largest_error(before: Model, after: Model, sizes: int = 2) -> float:
    """The largest difference of any output over the largest number in it, in units of eps."""
    worst = 0.0
    for feed in feeds(before, 3, {"N": sizes}):
        for one, two in zip(_run(before, feed), _run(after, feed), strict=True):
            assert one.shape == two.shape
            assert one.dtype == two.dtype
            scale = float(np.abs(one).max(initial=0)) or 1.0
            difference = np.abs(one.astype(np.float64) - two).max(initial=0)
            worst = max(worst, float(difference) / scale / float(np.finfo(one.dtype).eps))
    return worst


def _run(model: Model, feed: Feed) -> list[Array]:
    if model.opset_imports[""] > 21:  # newer than the oldest supported runtime
        return list(ir.run_reference(model, feed).values())
    return outputs(model, feed)


def reasons(outcome: Outcome) -> str:
    """All near misses as one text."""
    return "\n".join(f"{miss.rule}: {miss.reason}" for miss in outcome.near_misses)


def check(one: Model, rule: str, left: Sequence[str], count: int = 1) -> None:
    """The rule applies so often, leaves these operators, and the outputs stay within `LIMIT`."""
    before = ir.snapshot(one)
    assert fuse(one, rule).applied == {rule: count}
    assert [ir.op(node) for node in one.graph] == list(left)
    for batch in (1, 3):
        assert largest_error(before, one, batch) < LIMIT


def refused(one: Model, rule: str, reason: str) -> None:
    """The rule does not apply, for this reason."""
    outcome = fuse(one, rule)
    assert outcome.count == 0
    assert reason in reasons(outcome)
