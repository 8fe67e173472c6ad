"""The dimension analysis: factors of a Reshape, what is frozen and why, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.analyses.axes.reshape import factors
from onnxslim.analyses.facts.dims import Dim, named
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor
from onnxslim.passes.prune.cut import cut
from tests.prunable import NETWORKS
from tests.quantizing import build

N = named("N")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((N, 12), (N, 3, 4), [(N, 0, 0), (3, 1, 1), (4, 1, 2)]),
        ((N, 3, 4), (N, 12), [(N, 0, 0), (3, 1, 1), (4, 2, 1)]),
        ((N, 8, 6), (N * 8, 6), [(N, 0, 0), (8, 1, 0), (6, 2, 1)]),
        ((N, 8, N), (N, 4, 2 * N), [(N, 0, 0), (4, 1, 1), (2, 1, 2), (N, 2, 2)]),
        ((2, 12), (8, 3), [(2, 0, 0), (4, 1, 0), (3, 1, 1)]),
        ((4, 6), (6, 4), []),
        ((1, 5), (5, 1, 1), [(5, 1, 0)]),
    ],
)
def test_two_shapes_are_cut_into_common_factors(
    source: tuple[Dim, ...], target: tuple[Dim, ...], expected: list[tuple[Dim, int, int]]
) -> None:
    found = [(f.size, f.source, f.target) for f in factors(source, target)]
    assert found == expected


FROZEN = {
    "LayerNormalization": "n = LayerNormalization (a, gain)",
    "ReduceMax": "m = ReduceMax <axes = [1], keepdims = 1> (a)  n = Sub (a, m)",
    "Softmax": "n = Softmax <axis = 1> (a)",
    "Shape": "s = Shape (a)  c = Cast <to = 1> (s)  m = ReduceSum (c)  n = Add (a, m)",
    "NonZero": "z = NonZero (a)  c = Cast <to = 1> (z)  m = ReduceSum (c)  n = Add (a, m)",
    "Add": "n = Add (a, x)",
    "Gather": "g = Gather <axis = 1> (a, place)  u = Unsqueeze (g, place_)  n = Add (a, u)",
    "If": """c = Identity (yes)  i = If (c) <
        then_branch = t () => (float[N, 6] p) { p = Relu (a) },
        else_branch = e () => (float[N, 6] q) { q = Neg (a) }>
        n = Identity (i)""",
}


@pytest.mark.parametrize("operator", FROZEN)
def test_what_cannot_be_followed_is_frozen_with_the_operator_and_the_reason(operator: str) -> None:
    body = f"g (float[N,6] x) => (float[N,2] y) {{ a = MatMul (x, w1) {FROZEN[operator]} "
    weights: dict[str, Sequence[int] | Array] = {
        "w1": (6, 6),
        "w2": (6, 2),
        "gain": (6,),
        "place_": np.array([1]),
    }
    more = {"place": np.array(2), "yes": np.array([1.0], np.float32)}
    model = build(f"{body} y = MatMul (n, w2) }}", {**weights, **more}, 17)
    found = axis_map(model)
    first = found.stuck[0]
    assert first.node == "a"
    assert first.share > (0.1 if operator == "Gather" else 0.99)
    assert first.reason.startswith(operator)


def test_nothing_is_removed_that_must_stay_or_would_leave_an_axis_empty() -> None:
    model = NETWORKS["attention"].model()
    axes = axis_map(model)
    before = ir.checksum(model)
    all_of_one = axes.nothing()
    for unit in axes.groups[0].units:
        all_of_one[unit] = True
    with pytest.raises(EditError, match="nothing would be left of an axis"):
        cut(Editor(model), axes, all_of_one)
    part = axes.nothing()
    part[axes.groups[0].units[0][:2]] = True
    with pytest.raises(EditError, match="does not fit a Reshape"):
        cut(Editor(model), axes, part)
    with pytest.raises(EditError, match="must stay"):
        cut(Editor(model), axes, axes.solved.frozen)
    assert ir.checksum(model) == before


def test_the_cost_is_linear_in_the_nodes() -> None:
    def chain(length: int) -> float:
        nodes = "".join(f"a{i} = MatMul (r{i}, w1)  r{i + 1} = Relu (a{i}) " for i in range(length))
        body = (
            f"g (float[N,16] x) => (float[N,16] y) {{ r0 = Relu (x) {nodes} y = Neg (r{length}) }}"
        )
        model = build(body, {"w1": (16, 16)})
        start = time.process_time()
        axis_map(model)
        return time.process_time() - start

    chain(100)
    short = min(chain(300) for _ in range(3))
    assert min(chain(3000) for _ in range(3)) < 25 * max(short, 0.01)


def test_sizes_that_only_tell_a_shape_do_not_hold_channels() -> None:
    body = """g (float[N,6,H,W] x) => (float[N,K,5] y) {
      a = Conv (x, w1)  s = Shape (a)  b = Slice (s, zero_, two_)  c = Concat <axis = 0> (b, rest)
      r = Reshape (a, c)  t = Transpose <perm = [0,2,1]> (r)  y = MatMul (t, w2) }"""
    model = build(body, {"w1": (8, 6, 1, 1), "w2": (8, 5), "zero_": np.array([0]),
                         "two_": np.array([2]), "rest": np.array([-1])})  # fmt: skip
    assert [group.size for group in axis_map(model).groups] == [8]


def test_no_unit_is_all_of_an_axis() -> None:
    """Channels that are shuffled again and again: half of them go together, but all of a branch."""
    block = """
      b{0} = Reshape (a{0}, halves)  c{0} = Transpose <perm = [0,2,1,3,4]> (b{0})
      d{0} = Reshape (c{0}, whole)  e{0}, f{0} = Split <axis = 1> (d{0})
      g{0} = Conv (f{0}, w{0})  a{1} = Concat <axis = 1> (e{0}, g{0})"""
    blocks = " ".join(block.format(at, at + 1) for at in range(3))
    body = f"""g (float[N,16,4,4] x) => (float[N,3,4,4] y) {{
      p = Conv (x, wp)  q = Conv (x, wq)  a0 = Concat <axis = 1> (p, q) {blocks}
      y = Conv (a3, wy) }}"""
    first, inner = (8, 16, 1, 1), (8, 8, 1, 1)
    model = build(body, {"wp": first, "wq": first, "w0": inner, "w1": inner, "w2": inner,
                         "wy": (3, 16, 1, 1), "halves": np.array([0, 2, 8, 4, 4]),
                         "whole": np.array([0, 16, 4, 4])}, opset=13)  # fmt: skip
    axes = axis_map(model)
    assert [group.size for group in axes.groups] == [4, 2, 8]
    for unit in [unit for group in axes.groups for unit in group.units]:
        removed = axes.nothing()
        removed[unit] = True
        kinds = [ids for found in axes.trace.axes.values() for ids in found if ids is not None]
        assert not any(removed[axes.classes(ids)].all() for ids in kinds)


def test_heads_merged_with_the_batch_stay_where_that_axis_is_taken_apart() -> None:
    body = """g (float[N,7,8] x) => (float[N,7,5] y) {{
      a = MatMul (x, w1)  b = Reshape (a, heads)  c = Transpose <perm = [0,2,1,3]> (b)
      d = Reshape (c, merged)  e = {}  f = Reshape (e, apart)
      g1 = Transpose <perm = [0,2,1,3]> (f)  h = Reshape (g1, whole)  y = MatMul (h, w2) }}"""
    weights: dict[str, Sequence[int] | Array] = {
        "w1": (8, 12), "w2": (12, 5), "heads": np.array([0, 0, 3, 4]),
        "whole": np.array([0, 0, 12]),
        "merged": np.array([-1, 7, 4]), "apart": np.array([-1, 3, 7, 4]),
    }  # fmt: skip
    found = axis_map(build(body.format("Relu (d)"), weights)).groups
    assert sorted(group.size for group in found) == [3, 4]
    weights["zero_"] = np.array(0)
    taken = axis_map(build(body.format("CumSum (d, zero_)"), weights))
    assert not taken.groups
    assert "merged with one of varying size" in taken.stuck[0].reason
