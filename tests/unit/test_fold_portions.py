from __future__ import annotations

import pytest

from onnxslim import ir
from onnxslim.passes.fold import portions as module
from onnxslim.passes.fold.portions import portions

LAYERS = 5


def chains() -> ir.Model:
    """Five weights, each standardized by itself, and a sum of the last two."""
    steps = "".join(f"m{i} = ReduceMean (w{i}) d{i} = Sub (w{i}, m{i}) " for i in range(LAYERS))
    weights = ", ".join(f"float[4] w{i} = {{{i}, 2, 3, 4}}" for i in range(LAYERS))
    return ir.parse_text(f"""<ir_version: 10, opset_import: ["" : 21]>
      g () => (float[4] d0, float[4] s) <{weights}> {{ {steps} s = Add (d3, d4) }}""")


def test_what_depends_on_each_other_stays_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chains()
    monkeypatch.setattr(module, "PORTION", 0)
    found = [[str(node.outputs[0].name) for node in part] for part in portions(list(model.graph))]
    assert found == [["m0", "d0"], ["m1", "d1"], ["m2", "d2"], ["m3", "d3", "m4", "d4", "s"]]


def test_small_ones_are_one_portion() -> None:
    nodes = list(chains().graph)
    (part,) = portions(nodes)
    assert set(part) == set(nodes)
    assert list(portions([])) == []
