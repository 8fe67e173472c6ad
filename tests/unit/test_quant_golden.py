"""Graphs before and after, as text: tests/golden/quant/NAME.before.txt and NAME.after.txt.

A case without an after file must come out as it went in. Calibration is the same for all: inputs
from -1 to 1, so that every number in the files can be worked out by hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.runtime.samples import Feed
from onnxslim.targets import get_target
from tests.quantizing import any_size, quantize

FOLDER = Path(__file__).parent.parent / "golden" / "quant"
CASES = sorted(path.name.removesuffix(".before.txt") for path in FOLDER.glob("*.before.txt"))


def _feed(model: Model) -> Feed:
    """Every float input counts from -1 to 1 over two samples; conditions are true."""
    feed: dict[str, ir.Array] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        shape = [dim if isinstance(dim, int) else 2 for dim in value.shape]
        if value.dtype == ir.DataType.BOOL:
            feed[str(value.name)] = np.ones(shape, np.bool_)
        else:
            count = int(np.prod(shape))
            feed[str(value.name)] = np.linspace(-1, 1, count, dtype=np.float32).reshape(shape)
    return feed


@pytest.mark.parametrize("name", CASES)
def test_the_graph_after_is_as_written(name: str) -> None:
    model = ir.parse_text((FOLDER / f"{name}.before.txt").read_text())
    before = ir.to_text(model)
    quantize(
        model,
        [_feed(model)],
        any_size(get_target("ort-cpu-vnni")),  # whatever machine runs the test
        ranges="minmax",
        bias_correction=False,
        smooth="off",
        rounding="nearest",
    )
    expected = FOLDER / f"{name}.after.txt"
    assert ir.to_text(model) == (expected.read_text() if expected.exists() else before)


def test_every_file_after_has_one_before() -> None:
    after = {path.name.removesuffix(".after.txt") for path in FOLDER.glob("*.after.txt")}
    assert after <= set(CASES)
    assert len(CASES) - len(after) == 2  # computed_weight and subgraph must stay as they are
