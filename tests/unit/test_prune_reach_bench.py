"""Parts of the benchmark of reach: what the work that is left foretells of the latency."""

from __future__ import annotations

import pytest

from tests.bench.prune_reach.foretold import Event, by_kind, foretold


def event(op: str, ms: float, inputs: list[list[int]], output: list[int]) -> Event:
    shapes = {"input_type_shape": inputs, "output_type_shape": [output]}
    typed = {key: [{"float": shape} for shape in of] for key, of in shapes.items()}
    return {"name": "n_kernel_time", "dur": 1e3 * ms, "args": {"op_name": op, **typed}}


def runs(channels: int, ms: float) -> list[Event]:
    """Two runs of a pointwise and a depthwise convolution and an activation."""
    image = [1, channels, 8, 8]
    return 2 * [
        event("Conv", ms, [image, [channels, channels, 1, 1]], image),
        event("Conv", ms, [image, [channels, 1, 3, 3]], image),
        event("HardSwish", ms, [image], image),
    ]


def test_dense_layers_count_by_products_and_the_rest_by_numbers() -> None:
    before, after = by_kind(runs(16, 1.0), 2), by_kind(runs(8, 9.0), 2)
    assert {kind: work.ms for kind, work in before.items()} == pytest.approx(
        {"dense": 1.0, "depthwise": 1.0, "HardSwish": 1.0}
    )
    assert before["dense"].amount == 16 * 16 * 64
    assert before["depthwise"].amount == 16 * 9 * 64
    assert foretold(before, after) == pytest.approx((0.25 + 0.5 + 0.5) / 3)


def test_a_kind_that_is_new_takes_what_it_takes_and_one_that_is_gone_nothing() -> None:
    before = by_kind(runs(16, 1.0), 2)
    image = [1, 16, 8, 8]
    after = by_kind([event("ReorderInput", 0.3, [image], image)], 1)
    assert foretold(before, after) == pytest.approx(0.1)
