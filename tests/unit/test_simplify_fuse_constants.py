"""Constants folded into the layers before and behind them: equal outputs, and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Array, Model
from onnxslim.passes.fold.affine import finite
from tests.fusing import LIMIT, check, fuse, largest_error, refused
from tests.quantizing import build

X, Y = "float[N,6,8] x", "float[N,6,12] y"
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "w": (8, 12),
    "b": (12,),
    "v": (12,),
    "k": (8,),
    "s": np.array(0.37, np.float32),
    "quarter": np.array(0.25, np.float32),
    "split": np.array([0, 0, 3, 2, 2]),
    "zero_i": np.array(0),
    "one_i": np.array(1),
    "i0": np.array([0]),
    "i4": np.array([4]),
    "i12": np.array([12]),
    "i8": np.array([8]),
    "last": np.array([2]),
    "heads": np.array([0, 0, 2, 2]),
    "flat": np.array([-1, 4]),
    "var_c": (12, 1),
    "var_f": np.array([1.5, 0.5, 2, 1, 3, 0.25, 1, 1], np.float32),
}


def model(
    nodes: str,
    x: str = X,
    y: str = Y,
    more: Mapping[str, Sequence[int] | Array] | None = None,
    opset: int = 17,
) -> Model:
    return build(f"net ({x}) => ({y}) {{ {nodes} }}", {**WEIGHTS, **(more or {})}, opset)


DENSE = "a = MatMul(x, w) c = Add(a, b)"
INTO_MATMUL = {
    "scale": ("a = MatMul(x, w) y = Mul(a, s)", "MatMul"),
    "scale of a bias": (f"{DENSE} y = Mul(c, v)", "MatMul Add"),
    "offset": (f"{DENSE} y = Add(v, c)", "MatMul Add"),
    "subtraction from": (f"{DENSE} y = Sub(v, c)", "MatMul Add"),
    "division": (f"{DENSE} y = Div(c, s)", "MatMul Add"),
}


@pytest.mark.parametrize("name", INTO_MATMUL)
def test_arithmetic_goes_into_a_matmul(name: str) -> None:
    nodes, left = INTO_MATMUL[name]
    check(model(nodes), "affine-into-matmul", left.split())


def test_a_scale_by_channel_goes_through_a_transpose() -> None:
    nodes = f"{DENSE} t = Transpose <perm = [0, 2, 1]> (c) y = Mul(t, var_c)"
    check(model(nodes, y="float[N,12,6] y"), "affine-into-matmul", ["MatMul", "Add", "Transpose"])


def test_a_power_of_two_moves_without_any_rounding() -> None:
    one = model("a = MatMul(x, w) y = Mul(a, quarter)")
    before = ir.snapshot(one)
    fuse(one, "affine-into-matmul")
    assert largest_error(before, one) == 0


QKV = (
    f"{DENSE} r = Reshape(c, split) t = Transpose <perm = [2, 0, 3, 1, 4]> (r) "
    "q = Gather <axis = 0> (t, zero_i) k0 = Gather <axis = 0> (t, one_i) "
)


def test_only_the_columns_of_the_queries_are_scaled() -> None:
    nodes = f"{QKV} z = Mul(q, s) kt = Transpose <perm = [0, 1, 3, 2]> (k0) y = MatMul(z, kt)"
    one = model(nodes, y="float[N,2,6,6] y")
    weight = ir.array(next(v for v in one.graph.initializers.values() if v.name == "w"))
    assert weight is not None
    check(
        one,
        "affine-into-matmul",
        ["MatMul", "Add", "Reshape", "Transpose", "Gather", "Gather", "Transpose", "MatMul"],
    )
    after = ir.array(next(v for v in one.graph.initializers.values() if v.name == "w"))
    assert after is not None
    assert (after[:, 4:] == weight[:, 4:]).all()
    assert np.allclose(after[:, :4], weight[:, :4] * np.float32(0.37), rtol=1e-6)


def test_a_scale_moves_over_a_product_into_the_first_operand() -> None:
    nodes = f"{QKV} kt = Transpose <perm = [0, 1, 3, 2]> (k0) p = MatMul(q, kt) y = Div(p, s)"
    one = model(nodes, y="float[N,2,6,6] y")
    before = ir.snapshot(one)
    assert fuse(one, "affine-into-matmul").count == 1
    assert [ir.op(node) for node in one.graph][-1] == "MatMul"
    assert largest_error(before, one) < LIMIT


@pytest.mark.parametrize(
    "cut",
    [
        "q, k0, r0 = Split <axis = 2> (c, sizes)",
        "q = Slice(c, i0, i4, last) k0 = Slice(c, i4, i8, last)",
    ],
)
def test_split_and_slice_pick_columns(cut: str) -> None:
    nodes = f"{DENSE} {cut} z = Mul(q, s) y = Add(z, k0)"
    one = model(nodes, y="float[N,6,4] y", more={"sizes": np.array([4, 4, 4])})
    before = ir.snapshot(one)
    assert fuse(one, "affine-into-matmul").count == 1
    assert "Mul" not in {ir.op(node) for node in one.graph}
    assert largest_error(before, one) < LIMIT


REFUSED = {
    "extra reader": (f"{DENSE} d = Mul(c, s) y = Add(d, c)", Y, "too"),
    "whole tensor read beside": (
        f"{QKV} z = Mul(q, s) m = ReduceMax <axes = [0]> (t) m0 = Squeeze(m, i0) y = Add(z, m0)",
        "float[N,2,6,2] y",
        "is read by",
    ),
    "the same columns twice": (
        f"{DENSE} q = Slice(c, i0, i4, last) k0 = Slice(c, i0, i4, last) z = Mul(q, s) "
        "y = Add(z, k0)",
        "float[N,6,4] y",
        "is read by",
    ),
    "offset over a product": (
        f"{QKV} kt = Transpose <perm = [0, 1, 3, 2]> (k0) p = MatMul(q, kt) y = Add(p, s)",
        "float[N,2,6,6] y",
        "offset cannot be moved over a product",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_other_values_stays(name: str) -> None:
    nodes, y, reason = REFUSED[name]
    refused(model(nodes, y=y), "affine-into-matmul", reason)


def test_a_constant_that_adds_an_axis_stays() -> None:
    nodes = "a = MatMul(x, w) y = Mul(a, many)"
    one = model(nodes, "float[6,8] x", "float[3,6,12] y", {"many": (3, 1, 1)})
    refused(one, "affine-into-matmul", "may change the rank")


def test_a_weight_that_two_layers_share_stays() -> None:
    nodes = "a = MatMul(x, w) c = Mul(a, s) d = MatMul(x, w) y = Add(c, d)"
    refused(model(nodes), "affine-into-matmul", "its weight 'w' is read elsewhere too")


ROPE = (
    "a = MatMul(x, w) c = Add(a, b) lo = Slice(c, i0, i4, last) hi = Slice(c, i4, i8, last) "
    "n = Neg(hi) o = Concat <axis = -1> (n, lo) p = Concat <axis = -1> (lo, hi) "
    "cs = Mul(p, z) sn = Mul(o, z) r = Add(cs, sn) "
)
TWO, TO = "float[N,6,8] x, float[N,6,8] z", "float[N,6,6] y"


@pytest.mark.parametrize("scale", ["y = Mul(t, s)", "y = Div(t, s)"])
def test_a_scale_goes_over_sums_and_products_into_the_matmul(scale: str) -> None:
    nodes = f"{ROPE} zt = Transpose <perm = [0, 2, 1]> (z) t = MatMul(r, zt) {scale}"
    one = model(nodes, TWO, TO)
    before = ir.snapshot(one)
    assert fuse(one, "scale-into-matmul").count == 1
    assert list(one.graph)[-1].op_type == "MatMul"
    assert largest_error(before, one) < LIMIT


NOT_PROPORTIONAL = {
    "sum with another": f"{ROPE} q = Add(r, z) y = Mul(q, s)",
    "product of two": f"{ROPE} q = Mul(r, p) y = Mul(q, s)",
    "constant in a concat": f"{ROPE} q = Concat <axis = 1> (r, z) y = Mul(q, s)",
    "not linear": f"{ROPE} q = Relu(r) y = Mul(q, s)",
    "read beside": f"{ROPE} q = Mul(r, s) y = Add(q, p)",
}


@pytest.mark.parametrize("name", NOT_PROPORTIONAL)
def test_what_is_not_proportional_keeps_its_scale(name: str) -> None:
    size = 12 if "concat" in name else 6
    one = model(NOT_PROPORTIONAL[name], TWO, f"float[N,{size},8] y")
    assert fuse(one, "scale-into-matmul").count == 0


def test_a_square_keeps_its_factor() -> None:
    nodes = "a = MatMul(x, sq) t = MatMul(a, a) y = Mul(t, s)"
    one = model(nodes, x="float[N,8,8] x", y="float[N,8,8] y", more={"sq": (8, 8)})
    assert fuse(one, "affine-into-matmul").count == 0


def test_weights_beyond_their_type_are_refused() -> None:
    half = np.dtype(np.float16)
    assert finite(np.array([1.0, 2.0]), half).dtype == half
    with pytest.raises(EditError, match="beyond the range of float16"):
        finite(np.array([1.0, 7e4]), half)
    with pytest.raises(EditError, match="beyond the range"):
        finite(np.array([np.nan]), half)
    with pytest.raises(EditError, match="too small for float16"):
        finite(np.array([1e-6, 0.0]), half)


IMAGE, MAP = "float[N,4,7,7] x", "float[N,5,5,5] y"
CONV: dict[str, Sequence[int] | Array] = {
    "cw": (5, 4, 3, 3), "cb": (5,), "gw": (4, 1, 3, 3), "tw": (4, 5, 3, 3),
    "c": np.array([1.5, -0.5, 2, 1], np.float32).reshape(4, 1, 1),
    "g": (4,), "bt": (4,), "m": (4,), "var": (4,),
}  # fmt: skip
PADDED = "Conv <pads = [1, 1, 1, 1]>"
INTO_NEXT = {
    "mul conv": ("a = Mul(x, c) y = Conv(a, cw)", IMAGE, MAP, "Conv"),
    "add conv": ("a = Add(x, c) y = Conv(a, cw)", IMAGE, MAP, "Conv"),
    "add conv with bias": ("a = Sub(c, x) y = Conv(a, cw, cb)", IMAGE, MAP, "Conv"),
    "scalar conv": ("a = Div(x, s) y = Conv(a, cw, cb)", IMAGE, MAP, "Conv"),
    "mul padded conv": (f"a = Mul(x, c) y = {PADDED} (a, cw)", IMAGE, "float[N,5,7,7] y", "Conv"),
    "groups": ("a = Add(x, c) y = Conv <group = 4> (a, gw)", IMAGE, "float[N,4,5,5] y", "Conv"),
    "transposed": (
        "a = Mul(x, c) y = ConvTranspose (a, tw)", IMAGE, "float[N,5,9,9] y", "ConvTranspose",
    ),
    "batchnorm": (
        "a = BatchNormalization(x, g, bt, m, var) y = Conv(a, cw)", IMAGE, MAP, "Conv",
    ),
    "mul matmul": ("a = Mul(x, var_f) y = MatMul(a, w)", X, Y, "MatMul"),
    "add matmul": ("a = Add(x, k) d = MatMul(a, w) y = Add(d, b)", X, Y, "MatMul Add"),
    "gemm": (
        "a = Sub(x, k) y = Gemm <alpha = 0.5> (a, w, b)", "float[N,8] x", "float[N,12] y", "Gemm",
    ),
    "transposed gemm": (
        "a = Add(x, k) y = Gemm <transB = 1> (a, wt)", "float[N,8] x", "float[N,12] y", "Gemm",
    ),
    "gemm without a bias": (
        "a = Add(x, k) y = Gemm <beta = 0.5> (a, w)", "float[N,8] x", "float[N,12] y", "Gemm",
    ),
    "two layers": (
        "a = Mul(x, var_f) d = MatMul(a, w) e = MatMul(a, w2) y = Add(d, e)",
        X, Y, "MatMul MatMul Add",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INTO_NEXT)
def test_arithmetic_goes_into_the_layer_behind_it(name: str) -> None:
    nodes, x, y, left = INTO_NEXT[name]
    one = model(nodes, x, y, {**CONV, "wt": (12, 8), "w2": (8, 12)})
    check(one, "affine-into-next", left.split())


def test_a_scale_before_an_offset_goes_into_a_padded_conv() -> None:
    one = model(
        f"a = Mul(x, s) d = Add(a, c) y = {PADDED} (d, cw)", IMAGE, "float[N,5,7,7] y", CONV
    )
    check(one, "affine-into-next", ["Add", "Conv"])


NOT_INTO_NEXT = {
    "padding": (
        f"a = BatchNormalization(x, g, bt, m, var) y = {PADDED} (a, cw)",
        IMAGE, "float[N,5,7,7] y", "pads with zeros",
    ),
    "no bias": ("a = BatchNormalization(x, g8, b8, m8, var8) y = MatMul(a, w)",
                "float[N,8] x", "float[N,12] y", "has no bias"),
    "spatial constant": (
        "a = Mul(x, row) y = Conv(a, cw)", IMAGE, MAP, "does not go by channel",
    ),
    "end of a gelu": (
        "e = Erf(x) o = Add(e, one) p = Mul(x, o) a = Mul(p, s) y = MatMul(a, w)",
        X, Y, "part of a Gelu",
    ),
    "end of a normalization": (
        "p = Mul(x, x) m0 = ReduceMean <axes = [-1]> (p) r = Sqrt(m0) n = Div(x, r) "
        "a = Mul(n, k) y = MatMul(a, w)", X, Y, "part of a normalization",
    ),
    "larger": (
        "a = Mul(x, k) y = MatMul(a, w)", "float[N,6,1] x", Y, "may change the shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_INTO_NEXT)
def test_what_a_layer_behind_cannot_take_stays(name: str) -> None:
    nodes, x, y, reason = NOT_INTO_NEXT[name]
    eight: Mapping[str, Sequence[int]] = {
        "g8": (8,),
        "b8": (8,),
        "m8": (8,),
        "var8": (8,),
        "row": (1, 7),
    }
    refused(model(nodes, x, y, {**CONV, **eight}), "affine-into-next", reason)


def test_another_reader_keeps_the_arithmetic() -> None:
    one = model(
        "a = Mul(x, var_f) d = MatMul(a, w) e = Relu(a) f = MatMul(e, w2) y = Add(d, f)",
        more={"w2": (8, 12)},
    )
    assert fuse(one, "affine-into-next").count == 0


CHAINS = {  # and how often the rule is applied: to the first part of four, then to the rest
    "mul mul": ("a = Mul(x, s) y = Div(a, k)", ["Mul"], 1),
    "three": ("a = Mul(x, s) d = Add(a, k) y = Mul(d, s)", ["Mul", "Add"], 1),
    "four": ("a = Add(x, s) d = Mul(a, k) e = Sub(d, s) y = Div(e, s)", ["Mul", "Add"], 2),
}


@pytest.mark.parametrize("name", CHAINS)
def test_runs_of_constants_become_short(name: str) -> None:
    nodes, left, count = CHAINS[name]
    one = model(nodes, y="float[N,6,8] y", more={"k": np.linspace(1, 2, 8, dtype=np.float32)})
    check(one, "constant-chain", left, count)


NOT_CHAINED = {
    "as many as before": ("a = Add(x, s) y = Sub(k, a)", ""),
    "rounding on purpose": ("a = Add(x, big) y = Sub(a, big1)", "there to round"),
    "overflow": ("a = Mul(x, huge) y = Mul(a, huge)", "beyond the range of float32"),
    "outer product": ("a = Mul(x, row6) y = Mul(a, k)", "would be larger"),
    "read between": ("a = Mul(x, s) d = Mul(a, k) y = Add(d, a)", ""),
}


@pytest.mark.parametrize("name", NOT_CHAINED)
def test_other_runs_stay(name: str) -> None:
    nodes, reason = NOT_CHAINED[name]
    one = model(
        nodes,
        y="float[N,6,8] y",
        more={
            "big": np.array(8388608, np.float32),
            "big1": np.array(8388607, np.float32),
            "huge": np.array(1e30, np.float32),
            "row6": (6, 1),
        },
    )
    refused(one, "constant-chain", reason)


def test_a_matmul_of_a_matrix_and_its_bias_are_a_gemm() -> None:
    one = model(DENSE.replace("c =", "y ="), "float[N,8] x", "float[N,12] y")
    check(one, "matmul-add-to-gemm", ["Gemm"])
    flat = model(
        "a = MatMul(x, w) y = Add(b1, a)", "float[N,8] x", "float[N,12] y", {"b1": (1, 12)}
    )
    check(flat, "matmul-add-to-gemm", ["Gemm"])


def test_a_matmul_of_more_axes_is_no_gemm() -> None:
    refused(model(DENSE.replace("c =", "y =")), "matmul-add-to-gemm", "not known to be a matrix")
