"""A pruned model equals the original with what was removed masked: the safety of pruning."""

from __future__ import annotations

import contextlib
from collections import Counter
from random import Random

import pytest

from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.session import open_session
from tests.prunable import NETWORKS
from tests.pruning import cut_and_masked, difference
from tests.quantizing import feeds
from tests.random_graphs.builder import WORLDS
from tests.random_graphs.case import build

# float32 sums of at most some hundred products, in another order
TOLERANCE = 1e-5


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
            original = ir.snapshot(model)
            made = cut_and_masked(model, 0.4, seed)
            if made is not None:
                count += 1
                operators.update(ir.op(node) for node in model.graph)
                assert difference(*made, samples, original) < TOLERANCE, case.text
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
