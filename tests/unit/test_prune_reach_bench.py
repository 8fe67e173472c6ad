"""Parts of the benchmark of reach: what is cut evenly, and what the work left foretells."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from tests.bench.prune_reach.foretold import Event, by_kind, foretold
from tests.bench.prune_reach.measure import EVENLY, evenly, macs
from tests.quantizing import build


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


def test_evenly_takes_like_shares_of_all_groups_until_no_more_than_the_default_is_left() -> None:
    model = build(
        """g (float[1,64,4,4] x) => (float[1,8,4,4] y) {
          a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  d = Relu (c)  y = Conv (d, w3) }""",
        {"w1": (128, 64, 1, 1), "w2": (256, 128, 1, 1), "w3": (8, 256, 1, 1)},
        17,
    )
    feed = {"x": np.zeros((1, 64, 4, 4), np.float32)}
    counts = {str(n.outputs[0].name): c for n, c in macs(model, feed).items()}
    left, pruned = evenly(model, counts)
    assert sum(macs(pruned, feed).values()) == pytest.approx(left * sum(counts.values()))
    assert EVENLY - 0.06 < left <= EVENLY
    stay = [ir.array(node.inputs[1]) for node in pruned.graph if node.op_type == "Conv"]
    kept = [len(w) / size for w, size in zip(stay[:2], (128, 256), strict=True) if w is not None]
    assert kept[0] == pytest.approx(kept[1], abs=1 / 8)  # a multiple of 16 of 128 channels
    assert max(kept) < 1
