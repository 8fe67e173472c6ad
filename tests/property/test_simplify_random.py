"""Over random graphs of some hundred operators: simplify keeps what they compute and are."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, reject, settings

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.session import open_session
from tests.random_graphs import Case, build, cases
from tests.random_graphs.builder import WORLDS
from tests.simplified import ROUNDING, SHAPES, applied_rounding, broken, fold, simplify

Outputs = list[dict[str, Any]]

NEED_AN_IMAGE = {"Resize", "AveragePool", "LpPool", "MaxPool", "LRN", "InstanceNormalization"}

EMPTY = {"N": 0, "S": 2}


def outputs(model: ir.Model, case: Case) -> Outputs:
    """What the model gives in each world."""
    session = open_session(model, optimize="none")
    return [session.run(case.feed(world)) for world in WORLDS]


def outputs_of_nothing(model: ir.Model, case: Case) -> dict[str, Any] | None:
    """What the model gives for an empty batch; None where it cannot be run with one.

    ONNX Runtime crashes in some kernels that have no image to work on.
    """
    if any(node.op_type in NEED_AN_IMAGE for node in ir.nodes(model)):
        return None
    try:
        return open_session(model, optimize="none").run(case.feed(EMPTY))
    except RuntimeUnavailable:
        return None


def different(before: Outputs, after: Outputs, limits: dict[str, float] | None) -> str | None:
    """Where two results differ by more than rounding, or in shape or type.

    Each output has a limit, the bound of its rounding error from the running error analysis of
    `random_graphs.builder`, times four: both models round, and what is fused rounds its weights
    once more. Without limits they are equal to the last bit.
    """
    for world, (one, other) in enumerate(zip(before, after, strict=True)):
        for name in one:
            x, y = np.asarray(one[name]), np.asarray(other[name])
            if x.shape != y.shape or x.dtype != y.dtype:
                return f"{name}: {x.dtype}{x.shape} became {y.dtype}{y.shape} in world {world}"
            if limits is None:
                if x.tobytes() == y.tobytes():
                    continue
                return f"{name} is not bit-equal in world {world}: {first_difference(x, y)}"
            if (limit := limits[name]) < np.inf:
                distance = np.abs(x.astype(np.float64) - y)[~(np.isnan(x) & np.isnan(y))].max(
                    initial=0
                )
                if not distance <= limit:
                    return f"{name} differs by {distance} > {limit} in world {world}"
    return None


def first_difference(x: ir.Array, y: ir.Array) -> str:
    for one, other in zip(x.ravel(), y.ravel(), strict=True):
        if one.tobytes() != other.tobytes():
            return f"{one} became {other}"
    return ""


def violation(case: Case, skip: tuple[str, ...] = ()) -> str | None:
    """What simplify does wrong with a model."""
    original, model, twin = (noted(case) for _ in range(3))
    try:
        before, before_empty = outputs(original, case), outputs_of_nothing(original, case)
    except RuntimeUnavailable:  # one in ten thousand; e.g. it loses what only an If reads
        reject()
    result = simplify(model, skip)
    rounded = bool(applied_rounding(result))
    limits = {v.name: 4 * v.error for v in case.outputs} if rounded else None
    after = outputs(model, case)
    if (why := different(before, after, limits)) is not None:
        return f"{why} {dict(result.stats)}"
    if before_empty is not None:
        after_empty = outputs_of_nothing(model, case)
        if after_empty is None:
            return f"an empty batch does not run any more {dict(result.stats)}"
        # the bounds are of the other worlds: a reduction of nothing may be infinite
        shapes_only = None if limits is None else dict.fromkeys(limits, np.inf)
        if (why := different([before_empty], [after_empty], shapes_only)) is not None:
            return f"with an empty batch: {why} {dict(result.stats)}"
    first = ir.checksum(model)
    if skip:
        return None
    if (why := broken(original, model)) is not None:
        return why
    simplify(twin)
    return None if ir.checksum(twin) == first else "a second run gives another model"


def noted(case: Case) -> ir.Model:
    """The model, with something written on it."""
    model = ir.parse_text(case.text)
    model.metadata_props["note"] = model.doc_string = "kept"
    return model


def larger(case: Case) -> str | None:
    """Weights that were added beyond what folding adds."""
    folded, model = ir.parse_text(case.text), ir.parse_text(case.text)
    fold(folded)
    simplify(model)
    before, after = ir.weight_bytes(folded), ir.weight_bytes(model)
    return None if after <= before + SHAPES else f"{before} bytes became {after}"


def test_the_graphs_have_at_least_80_operators() -> None:
    """Standard ones, each in some graph that is valid; and sizes of shapes differ by world."""
    seen: Counter[str] = Counter()
    for seed in range(400):
        case = build(Random(seed))
        seen.update({ir.op(node) for node in ir.nodes(ir.parse_text(case.text))})
    standard = [op for op in seen if "::" not in op]
    assert len(standard) >= 110
    assert {"If", "Loop", "Scan", "local::nest"} <= set(seen)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_simplify_keeps_what_a_model_is(case: Case) -> None:
    assert violation(case) is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_without_rules_that_round_outputs_are_bit_equal(case: Case) -> None:
    assert violation(case, tuple(ROUNDING)) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_weights_do_not_grow(case: Case) -> None:
    assert larger(case) is None
