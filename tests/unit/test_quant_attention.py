"""Attention written out becomes one operator where the target has it; the numbers stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.attention import FUSED_ATTENTION
from onnxslim.passes.quant.prepare.canonical import canonicalize
from onnxslim.rewrite import Outcome, apply
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.quantizing import any_size, build, feeds, kernels, operators, outputs, quantize

ATTENTION = "com.microsoft::MultiHeadAttention"
WEIGHTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("wq", "wk", "wv", "wo"), (24, 24)), "wp": (24, 72), "bq": (24,),
}  # fmt: skip
CONSTANTS: Mapping[str, Array] = {
    "split_heads": np.array([0, 0, 3, 8], np.int64),
    "split_packed": np.array([0, 0, 9, 8], np.int64),
    "join": np.array([0, 0, 24], np.int64),
    "two": np.array([2], np.int64),
    "thirds": np.array([3, 3, 3], np.int64),
    "halves": np.array([4, 4, 1], np.int64),
    "root": np.array(8**0.5, np.float32),
    "bands": np.zeros((1, 3, 4, 1), np.float32),
}
PROJECTED = (
    " q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
    " qr = Reshape(q, split_heads) kr = Reshape(k, split_heads) vr = Reshape(v, split_heads)"
    " qh = Transpose <perm = [0, 2, 1, 3]> (qr) kh = Transpose <perm = [0, 2, 3, 1]> (kr)"
    " vh = Transpose <perm = [0, 2, 1, 3]> (vr)"
)
PACKED = (
    " p = MatMul(x, wp) pr = Reshape(p, split_packed) ph = Transpose <perm = [0, 2, 1, 3]> (pr)"
    " qh, ks, vh = Split <axis = 1> (ph, thirds) kh = Transpose <perm = [0, 1, 3, 2]> (ks)"
)
MASK = (
    " floats = Cast <to = 1> (m) u = Sub(one, floats) far = Mul(u, six) mask = Unsqueeze(far, two)"
)
JOINED = (
    " c = MatMul(a, vh) t = Transpose <perm = [0, 2, 1, 3]> (c) j = Reshape(t, join)"
    " y = MatMul(j, wo)"
)
HEAD = "net (float[N,S,24] x) => (float[N,S,24] y) {"
MASKED = "net (float[N,S,24] x, float[N,1,S] m) => (float[N,S,24] y) {"


def attention(heads: str, scores: str, head: str = HEAD, last: str = JOINED) -> Model:
    model = build(f"{head}{heads} s = MatMul(qh, kh){scores}{last} }}", {**WEIGHTS, **CONSTANTS})
    ir.verify(model)
    return model


def fused(model: Model) -> Outcome:
    outcome = apply(Editor(model), (FUSED_ATTENTION,))
    Editor(model).remove_dead()
    ir.verify(model)
    return outcome


CASES = {
    "projections": (PROJECTED, " a = Softmax <axis = -1> (s)", HEAD),
    "last axis by number": (PROJECTED, " a = Softmax <axis = 3> (s)", HEAD),
    "parts of one tensor": (PACKED, " a = Softmax <axis = -1> (s)", HEAD),
    "divided scores": (PROJECTED, " d = Div(s, root) a = Softmax <axis = -1> (d)", HEAD),
    "mask of a row": (PROJECTED, MASK + " z = Add(s, mask) a = Softmax <axis = -1> (z)", MASKED),
    "mask first": (PROJECTED, MASK + " z = Add(mask, s) a = Softmax <axis = -1> (z)", MASKED),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_becomes_one_operator_with_the_same_numbers(name: str) -> None:
    heads, scores, head = CASES[name]
    model = attention(heads, scores, head)
    before = ir.snapshot(model)
    assert fused(model).applied == {"attention": 1}
    found = operators(model)
    assert found[ATTENTION] == 1
    assert found["Softmax"] == found["Transpose"] == found["Reshape"] == 0
    for sizes in ({"N": 1, "S": 1}, {"N": 2, "S": 5}):
        feed = feeds(model, 1, sizes)[0]
        # sums of float32 in another order: some times 2^-24 of the largest terms, which are near 1
        assert outputs(model, feed)[0] == pytest.approx(outputs(before, feed)[0], abs=1e-5)


def test_a_mask_is_given_its_rows_once_for_all_layers() -> None:
    again = PROJECTED + " s = MatMul(qh, kh) z = Add(s, mask) a = Softmax <axis = -1> (z)" + JOINED
    names = ("q", "k", "v", "qr", "kr", "vr", "qh", "kh", "vh", "s", "z", "a", "c", "t", "j", "y")
    words = again.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
    first = " ".join(f"{word}1" if word in names else word for word in words)
    second = " ".join("y1" if word == "x" else word for word in words)
    model = build(f"{MASKED}{MASK} {first} {second} }}", {**WEIGHTS, **CONSTANTS})
    before = ir.snapshot(model)
    assert fused(model).applied == {"attention": 2}
    assert operators(model)["Expand"] == 1
    feed = feeds(model, 1, {"N": 2, "S": 5})[0]
    assert outputs(model, feed)[0] == pytest.approx(outputs(before, feed)[0], abs=1e-5)


SOFTMAX = " a = Softmax <axis = -1> (s)"
LEFT = {
    "over the queries": (PROJECTED, " a = Softmax <axis = 2> (s)", "not over the keys"),
    "heads of another axis": (
        PROJECTED.replace("perm = [0, 2, 1, 3]> (qr)", "perm = [0, 1, 2, 3]> (qr)"),
        SOFTMAX,
        "not the heads of a tensor",
    ),
    "unequal parts": (
        PACKED.replace("thirds", "halves"), SOFTMAX, "differ in their heads",
    ),
    "parts in another order": (
        PACKED.replace("qh, ks, vh", "ks, qh, vh"), SOFTMAX, "not all columns of one tensor",
    ),
    "mask of one key": (
        PROJECTED, " z = Add(s, bands) a = Softmax <axis = -1> (z)", "the same for all keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_something_else_stays_with_the_reason(name: str) -> None:
    heads, scores, reason = LEFT[name]
    head = HEAD.replace("S,", "4,")
    model = build(f"{head}{heads} s = MatMul(qh, kh){scores}{JOINED} }}", {**WEIGHTS, **CONSTANTS})
    text = ir.to_text(model)
    (missed,) = fused(model).near_misses
    assert reason in missed.reason
    assert ir.to_text(model) == text


def test_scores_that_are_read_elsewhere_stay() -> None:
    model = attention(PROJECTED, SOFTMAX, HEAD.replace(" y)", " y, float[N,3,S,S] a)"))
    (missed,) = fused(model).near_misses
    assert missed.reason == "'a', computed inside, is a graph output"


def test_its_shape_is_known() -> None:
    model = attention(PROJECTED, SOFTMAX)
    fused(model)
    (node,) = (node for node in model.graph if ir.op(node) == ATTENTION)
    assert [str(size) for size in Facts(model).shape(node.outputs[0]) or ()] == ["N", "S", "24"]


# In the pass


def test_quant_fuses_attention_for_its_target() -> None:
    model = attention(PROJECTED, SOFTMAX)
    before, samples = ir.snapshot(model), feeds(model, sizes={"S": 5})
    result = quantize(model, samples)
    assert kernels(model)["MultiHeadAttention"] == 1
    assert kernels(model)["MatMulIntegerToFloat"] == 2
    assert any(ATTENTION in note for note in result.notes)
    one, two = (open_session(m).run(samples[0])["y"] for m in (before, model))
    noise = float(((one - two) ** 2).sum() / (one**2).sum())
    assert 10 * np.log10(1 / noise) > 25  # a wrong scale or mask gives less than 10


@pytest.mark.parametrize(
    "options", [{"portable": True}, {"scheme": "fp16"}, {"ops": ("Gemm",)}], ids=str
)
def test_attention_stays_where_it_was_not_asked_for(options: Mapping[str, object]) -> None:
    more = " r = ReduceMean <axes = [1], keepdims = 0> (x) g = Gemm(r, wo) }"
    body = HEAD.replace("=> (", "=> (float[N,24] g, ") + PROJECTED + " s = MatMul(qh, kh)"
    model = build(body + SOFTMAX + JOINED + more, {**WEIGHTS, **CONSTANTS})
    result = quantize(model, feeds(model, sizes={"S": 5}), **options)  # type: ignore[arg-type]
    assert result.layers
    assert operators(model)[ATTENTION] == 0
    assert operators(model)["Softmax"] == 1


def test_other_targets_keep_it_written_out() -> None:
    model = attention(PROJECTED, SOFTMAX)
    quantize(model, feeds(model, sizes={"S": 5}), any_size(get_target("openvino")), scheme="int8")
    assert operators(model)[ATTENTION] == 0


# Its projections


def _projected(body: str, **options: object) -> tuple[Model, Model]:
    before = build(body, {**WEIGHTS, **CONSTANTS})
    model = ir.snapshot(before)
    canonicalize(Editor(model), {ATTENTION}, **options)  # type: ignore[arg-type]
    ir.verify(model)
    return before, model


BIASED = PROJECTED.replace("qr = Reshape(q,", "qb = Add(q, bq) qr = Reshape(qb,").replace(
    "kr = Reshape(k,", "kb = Add(k, bq) kr = Reshape(kb,"
)


def _whole(heads: str) -> str:
    return f"{HEAD}{heads} s = MatMul(qh, kh){SOFTMAX}{JOINED} }}"


@pytest.mark.parametrize(
    ("heads", "products", "adds"),
    [
        pytest.param(PROJECTED, 1, 0, id="without biases"),
        pytest.param(BIASED, 2, 1, id="two of three with a bias"),
        pytest.param(PROJECTED.replace("MatMul(x, wk)", "MatMul(x, wq)"), 3, 0, id="a tied weight"),
        pytest.param(PACKED, 1, 0, id="one product already"),
    ],
)
def test_projections_of_one_tensor_become_one(heads: str, products: int, adds: int) -> None:
    before, model = _projected(_whole(heads))
    assert operators(model)["MatMul"] == products + 1  # that of the output
    assert operators(model)["Add"] == adds
    assert operators(model)["Split"] == (products < 3)
    feed = feeds(model, 1, {"N": 2, "S": 5})[0]
    assert outputs(model, feed)[0] == pytest.approx(outputs(before, feed)[0], abs=1e-5)


def test_layers_that_options_name_stay_apart() -> None:
    _, model = _projected(_whole(PROJECTED), named=True)
    assert operators(model)["MatMul"] == 4
    assert operators(model)[ATTENTION] == 1


def test_quant_makes_one_kernel_of_the_projections() -> None:
    model = build(_whole(BIASED), {**WEIGHTS, **CONSTANTS})
    result = quantize(model, feeds(model, sizes={"S": 5}))
    assert kernels(model)["MatMulIntegerToFloat"] == 3
    assert kernels(model)["Add"] == 0
    assert result.stats["int8_layers"] == 3
