"""Slices that become a Split, and the signs of rotary embeddings: bit for bit, and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from tests.fusing import fuse, largest_error, reasons
from tests.quantizing import build

WEIGHTS: Mapping[str, Sequence[int] | Array] = {
    "i0": np.array([0]),
    "i2": np.array([2]),
    "i3": np.array([3]),
    "i6": np.array([6]),
    "end": np.array([1 << 62]),
    "m6": np.array([-6]),
    "last": np.array([-1]),
    "table": (4, 6),
    "rows": np.array([1, 2]),
}


def model(
    nodes: str, y: str = "float[N,2,6] y", x: str = "float[N,2,6] x", opset: int = 17
) -> Model:
    return build(f"net ({x}) => ({y}) {{ a = Relu(x) {nodes} }}", dict(WEIGHTS), opset)


def check(one: Model, rule: str, gone: str, left: int = 0, count: int = 1) -> None:
    before = ir.snapshot(one)
    assert fuse(one, rule).applied == {rule: count}
    assert [ir.op(node) for node in one.graph].count(gone) == left
    assert largest_error(before, one) == 0


HALVES = "lo = Slice(a, i0, i3, last) hi = Slice(a, i3, end, last)"


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_all_parts_of_an_axis_are_a_split(opset: int) -> None:
    one = model(f"{HALVES} y = Add(lo, hi)", "float[N,2,3] y", opset=opset)
    check(one, "slices-to-split", "Slice")
    split = next(node for node in one.graph if ir.op(node) == "Split")
    assert [value.name for value in split.outputs] == ["lo", "hi"]


def test_three_parts_in_any_order() -> None:
    nodes = (
        "p = Slice(a, i3, i6, last) q = Slice(a, m6, i2, last) r = Slice(a, i2, i3, last) "
        "y = Concat <axis = -1> (p, q, r)"
    )
    check(model(nodes), "slices-to-split", "Slice")


NOT_SPLIT = {
    "one part": "lo = Slice(a, i0, i3, last) y = Relu(lo)",
    "a gap": "lo = Slice(a, i0, i2, last) hi = Slice(a, i3, i6, last) "
    "y = Concat <axis = -1> (lo, hi)",
    "an overlap": "lo = Slice(a, i0, i3, last) hi = Slice(a, i2, i6, last) "
    "y = Concat <axis = -1> (lo, hi)",
    "steps": "lo = Slice(a, i0, i6, last, i2) hi = Slice(a, i3, i6, last) y = Add(lo, hi)",
}


@pytest.mark.parametrize("name", NOT_SPLIT)
def test_other_slices_stay(name: str) -> None:
    assert fuse(model(NOT_SPLIT[name], "float[N,2,K] y"), "slices-to-split").count == 0


def test_a_part_that_is_a_graph_output_stays() -> None:
    nodes = "lo = Slice(a, i0, i3, last) y = Slice(a, i3, i6, last) z = Relu(lo)"
    one = model(nodes, "float[N,2,3] y, float[N,2,3] z")
    outcome = fuse(one, "slices-to-split")
    assert outcome.count == 0
    assert "graph output" in reasons(outcome)


ROTATED = f"{HALVES} n = Neg(hi) r = Concat <axis = -1> (n, lo)"


def test_a_sign_goes_into_the_constant_behind_a_table() -> None:
    one = model(f"t = Gather(table, rows) {ROTATED} y = Mul(r, t)")
    check(one, "neg-into-table", "Neg")
    assert [ir.op(node) for node in one.graph].count("Mul") == 1


def test_a_sign_goes_into_a_table_that_two_products_read() -> None:
    nodes = (
        f"t = Sin(z) {ROTATED} p = Mul(r, t) b = Tanh(x) lo1 = Slice(b, i0, i3, last) "
        "hi1 = Slice(b, i3, i6, last) n1 = Neg(hi1) r1 = Concat <axis = -1> (n1, lo1) "
        "q = Mul(t, r1) y = Add(p, q)"
    )
    one = model(nodes, x="float[N,2,6] x, float[N,2,6] z")
    check(one, "neg-into-table", "Neg")
    assert [ir.op(node) for node in one.graph].count("Mul") == 3


NOT_TURNED = {
    "one product of a computed table": (f"t = Sin(x) {ROTATED} y = Mul(r, t)", "no other product"),
    "constant read elsewhere": (
        f"t = Gather(table, rows) {ROTATED} p = Mul(r, t) u = Relu(table) "
        "v = ReduceMax(u) y = Add(p, v)",
        "no other product",
    ),
    "table read elsewhere": (
        f"t = Gather(table, rows) {ROTATED} p = Mul(r, t) y = Add(p, t)", "no other product",
    ),
    "narrow factor": (
        f"t = ReduceMax <axes = [-1]> (x) {ROTATED} y = Mul(r, t)", "has not the shape",
    ),
    "negated value read elsewhere": (
        f"t = Gather(table, rows) {ROTATED} p = Mul(r, t) w = ReduceMax(n) y = Add(p, w)", "",
    ),
    "another axis": (
        "t = Gather(table, rows) n = Neg(a) lo = Slice(n, i0, i0, last) "
        "r = Concat <axis = 0> (n, a) y = Mul(r, t)", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TURNED)
def test_other_signs_stay(name: str) -> None:
    nodes, reason = NOT_TURNED[name]
    outcome = fuse(model(nodes, "float[M,2,6] y"), "neg-into-table")
    assert outcome.count == 0
    assert reason in reasons(outcome)
