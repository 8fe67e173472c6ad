"""A pruned model equals the original with what was removed masked: the safety of pruning."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Model
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from tests.prunable import NETWORKS
from tests.pruning import cut_and_masked, difference, operators_cut, share_of_each
from tests.quantizing import feeds
from tests.random_graphs.builder import WORLDS
from tests.random_graphs.case import build
from tests.random_prunable import random_prunable

# float32 sums of at most some hundred products, in another order
TOLERANCE = 1e-5
SHARE = 0.4


@pytest.mark.parametrize("name", NETWORKS)
def test_the_groups_of_a_network_are_found(name: str) -> None:
    network = NETWORKS[name]
    found = axis_map(network.model()).groups
    assert Counter((group.kind, group.size) for group in found) == Counter(network.groups)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_is_cut_equals_the_masked_one(name: str, seed: int) -> None:
    network = NETWORKS[name]
    model = network.model()
    original = ir.snapshot(model)
    made = cut_and_masked(model, 0.2 + 0.2 * seed, seed)
    assert made is not None
    samples = [feed for sizes in network.sizes for feed in feeds(model, 1, sizes)]
    assert difference(*made, samples, original) < TOLERANCE
    assert ir.weight_bytes(model) < ir.weight_bytes(original)


def cut_random(
    model: Model, samples: Sequence[Feed], seed: int, *, width: bool = False
) -> set[str] | None:
    """Cut a random graph and compare; the operators that carried what went, None if nothing did."""
    original = ir.snapshot(model)
    axes = axis_map(original, width=width)
    operators = operators_cut(axes, share_of_each(axes, SHARE, seed), original)
    made = cut_and_masked(model, SHARE, seed, width=width)
    if made is None:
        return None
    assert difference(*made, samples, original) < TOLERANCE, ir.to_text(original)
    return operators


def random_chains(first: int, last: int, *, width: bool) -> tuple[int, set[str]]:
    """How many chains of operators on channels had something to prune, and on which operators."""
    count, operators = 0, set[str]()
    for seed in range(first, last):
        model = random_prunable(Random(seed))
        samples = [feed for n in (1, 3) for feed in feeds(model, 1, {"N": n})]
        found = cut_random(model, samples, seed, width=width)
        if found is not None:
            count, operators = count + 1, operators | found
    return count, operators


@pytest.mark.parametrize("width", [False, True])
def test_random_operators_on_channels_that_go(width: bool) -> None:
    count, operators = random_chains(0, 60, width=width)
    assert count > 50
    assert len(operators) >= 80
    assert ("LayerNormalization" in operators) == width


@pytest.mark.slow
def test_many_random_operators_on_channels_that_go() -> None:
    count, operators = random_chains(60, 600, width=False)
    assert count > 480
    assert len(operators) >= 100


def random_graphs(first: int, last: int) -> tuple[int, Counter[str]]:
    """How many random graphs had something to prune, and the operators of those."""
    count, operators = 0, Counter[str]()
    for seed in range(first, last):
        case = build(Random(seed), 20)
        model = ir.parse_text(case.text)
        samples = [case.feed(world) for world in WORLDS]
        with contextlib.suppress(RuntimeUnavailable):
            session = open_session(model, optimize="none")
            for feed in samples:
                session.run(feed)
            if cut_random(model, samples, seed) is not None:
                count += 1
                operators.update(ir.op(node) for node in model.graph)
    return count, operators


def test_random_graphs_that_are_cut_equal_the_masked_ones() -> None:
    count, operators = random_graphs(0, 300)
    assert count > 15
    assert len(operators) > 60


@pytest.mark.slow
def test_many_random_graphs_that_are_cut_equal_the_masked_ones() -> None:
    count, operators = random_graphs(300, 3000)
    assert count > 200
    assert len(operators) > 90
