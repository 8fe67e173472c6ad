"""Whatever facts claim of a value holds in every run: ONNX's backend models, and random graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import OnnxSlimError
from onnxslim.runtime.session import open_session
from tests.corpus import Corpus, fix_inputs
from tests.fact_check import contradictions, main_values, tensor
from tests.random_graphs.builder import WORLDS
from tests.random_graphs.case import build

CHECKED_AT_LEAST = 1100
"""Models of the corpus that run with all their inner values as outputs."""

Naming = Callable[[str, int, int], "int | str | None"]


def _as_declared(name: str, axis: int, size: int) -> int:
    return size


def _each_its_own(name: str, axis: int, size: int) -> str:
    return f"{name}.{axis}"


def _by_size(name: str, axis: int, size: int) -> str | int:
    return f"S{size}" if size > 1 else size


NAMINGS: Mapping[str, Naming] = {
    "numbers": _as_declared,
    "a name for each axis": _each_its_own,
    "a name for each size": _by_size,
}


def _declare(model: ir.Model, feed: Mapping[str, Any], naming: Naming) -> None:
    """Declare the inputs' sizes anew, as is true of the feed."""
    for value in model.graph.inputs:
        array = tensor(feed.get(str(value.name)))
        if array is not None and isinstance(value.type, ir.TensorType):
            sizes = enumerate(array.shape)
            value.shape = ir.Shape([naming(str(value.name), i, size) for i, size in sizes])


def _values(model: ir.Model, feed: dict[str, Any]) -> dict[str, Any] | None:
    """All that the main graph computes; None where ONNX Runtime cannot run it like that."""
    names = [str(value.name) for value in main_values(model)]
    try:
        session = open_session(model, extra_outputs=names, optimize="none")
        return dict(session.run(feed))
    except (OnnxSlimError, ValueError, TypeError):
        return None


def test_facts_of_the_backend_models_hold_in_a_run() -> None:
    """Each with its inputs' sizes as numbers and as names, then with constants for integer inputs.

    With these the contents of shapes, axes and pads are known.
    """
    corpus, wrong = Corpus(), dict[str, list[str]]()
    checked = 0
    for name, proto in corpus.models.items():
        feed = corpus.feed(name)
        if feed is None or name.endswith(".onnx"):
            continue
        model = ir.load(proto)
        arrays = _values(model, feed)
        if arrays is None:
            continue
        checked += 1
        for kind, naming in NAMINGS.items():
            _declare(model, feed, naming)
            wrong[f"{name}, {kind}"] = contradictions(model, Facts(model), arrays, feed)
        integers = {k: v for k, v in feed.items() if _is_integer(v)}
        if integers:
            fix_inputs(model, integers)
            wrong[f"{name}, constants"] = contradictions(model, Facts(model), arrays, feed)
    assert {name: reasons for name, reasons in wrong.items() if reasons} == {}
    assert checked >= CHECKED_AT_LEAST


def _is_integer(array: Any) -> bool:
    found = tensor(array)
    return found is not None and found.dtype.kind in "iub"


def test_facts_of_random_models_hold_for_every_size_of_their_inputs() -> None:
    """One analysis of a model with symbolic sizes, and runs with three sizes of each symbol."""
    wrong: dict[str, list[str]] = {}
    checked = known = 0
    for seed in range(60):
        case = build(Random(seed), most=16)
        model = ir.parse_text(case.text)
        facts = Facts(model)
        known += sum(facts.shape(value) is not None for value in main_values(model))
        for world in WORLDS:
            arrays = _values(model, case.feed(world))
            if arrays is not None:
                checked += 1
                found = contradictions(model, facts, arrays, case.feed(world), world)
                wrong[f"seed {seed}, {world}"] = found
    assert {name: reasons for name, reasons in wrong.items() if reasons} == {}
    assert checked >= 120
    assert known >= 500
