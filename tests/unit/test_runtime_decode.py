from __future__ import annotations

import numpy as np

from onnxslim.ir import Array, Model
from onnxslim.runtime.decode import is_language_model, one_token
from tests.quantizing import build

TABLE = {"t": (96, 64)}


def decoder(out: int = 96) -> Model:
    """With a second input of the same length, and one of another."""
    text = (
        f"net (int64[B,S] ids, float[B,S,64] p, float[B,past,64] c) => (float[B,S,{out}] y)"
        " { e = Gather(t, ids) f = Add(e, p) m = ReduceMean <axes=[1]> (c) g = Add(f, m)"
        " y = MatMul(g, w) }"
    )
    return build(text, {**TABLE, "w": (64, out)})


def test_all_inputs_of_that_length_are_cut() -> None:
    feed: dict[str, Array] = {
        "ids": np.arange(10).reshape(2, 5),
        "p": np.zeros((2, 5, 64), np.float32),
    }
    feed["c"] = np.zeros((2, 7, 64), np.float32)
    cut = one_token(decoder(), feed)
    assert cut is not None
    assert {name: array.shape for name, array in cut.items()} == {
        "ids": (2, 1), "p": (2, 1, 64), "c": (2, 7, 64)
    }  # fmt: skip
    np.testing.assert_array_equal(cut["ids"], [[0], [5]])


def test_an_encoder_is_no_language_model() -> None:
    model = decoder(out=32)
    assert not is_language_model(model)
    assert one_token(model, {"ids": np.zeros((1, 5), np.int64)}) is None


def test_no_ids_no_tokens() -> None:
    model = build("n (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})
    assert one_token(model, {"x": np.zeros((1, 64), np.float32)}) is None


def test_a_fixed_length_is_not_cut() -> None:
    text = "n (int64[1,8] ids) => (float[1,8,96] y) { e = Gather(t, ids) y = MatMul(e, w) }"
    model = build(text, {**TABLE, "w": (64, 96)})
    assert is_language_model(model)
    assert one_token(model, {"ids": np.zeros((1, 8), np.int64)}) is None
