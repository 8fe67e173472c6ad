"""Made-up inputs: what each input is for, sizes that a model leaves free, and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from onnxslim.runtime.synthesize import synthesize

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1]>'


def _model(text: str) -> ir.Model:
    return ir.parse_text(HEAD + text)


def _feed(text: str) -> Feed:
    model = _model(text)
    feed = synthesize(model, 2)[1]
    open_session(model).run(feed)
    return feed


TEXT_MODEL = """
g (int64[B, S] input_ids, int64[B, S] attention_mask, int64[B, S] token_type_ids)
=> (float[B, S, 2] y)
<float[3, 2] table = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, int64[1] last = {2}>
{ ids = Cast<to = 6>(input_ids)
  more = Unsqueeze(ids, last)
  flat = Squeeze(more, last)
  rows = Gather(table, flat)
  m = Cast<to = 1>(attention_mask)
  mm = Unsqueeze(m, last)
  t = Gather(table, token_type_ids)
  s = Add(rows, t)
  y = Mul(s, mm) }"""


def test_identifiers_stay_within_the_table_and_masks_are_ones() -> None:
    model = _model(TEXT_MODEL)
    feeds = list(synthesize(model, 50))
    ids = np.concatenate([feed["input_ids"] for feed in feeds])
    assert set(ids.ravel().tolist()) == {0, 1, 2}
    assert ids.dtype == np.int64
    assert ids.shape == (50, 16)
    assert all(feed["attention_mask"].all() for feed in feeds)
    assert not any(feed["token_type_ids"].any() for feed in feeds)


def test_the_same_seed_gives_the_same_feeds() -> None:
    model = _model("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    first, again, other = (synthesize(model, 3, seed)[2]["x"] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    samples = synthesize(model, 3)
    assert not np.array_equal(samples[0]["x"], samples[1]["x"])
    assert len(list(samples)) == len(samples) == 3


@pytest.mark.parametrize(
    ("weight", "size"),
    [(224 * 224, 224), (28 * 28, 28), (640 * 640, 640), (48 * 48, 48)],
)
def test_image_sizes_are_found_by_running(weight: int, size: int) -> None:
    feed = _feed(f"""
    g (float[N, 1, H, W] x) => (float[M, {weight}] y) <int64[2] s = {{1, {weight}}}>
    {{ y = Reshape(x, s) }}""")
    assert feed["x"].shape == (1, 1, size, size)


def test_channels_last_images_and_free_channels() -> None:
    last = _feed("g (float[N, H, W, 3] x) => (float[N, H, W, 3] y) { y = Relu(x) }")
    assert last["x"].shape == (1, 224, 224, 3)
    first = _feed("g (float[N, C, H, W] x) => (float[N, C, H, W] y) { y = Relu(x) }")
    assert first["x"].shape == (1, 3, 224, 224)


def test_one_size_per_symbol_and_sums_of_symbols() -> None:
    feed = _feed(
        """
    g (int64[batch, seq] ids, float[batch, 2, past, 4] cache, int64[batch, past_seq] mask)
    => (float[batch, seq] y, float[batch, 2, past, 4] z)
    { i = Cast<to = 1>(ids) y = Identity(i) z = Identity(cache) }""".replace("past_seq", "total")
    )
    assert feed["ids"].shape == (1, 16)
    assert feed["cache"].shape == (1, 2, 0, 4)
    model = _model("g (float[n, seq] x, float[n, total] m) => (float[n, seq] y) { y = Relu(x) }")
    total = model.graph.inputs[1]
    total.shape = ir.Shape(["n", "seq + 3"])
    assert synthesize(model, 1)[0]["m"].shape == (1, 19)


def test_lengths_are_tried_too() -> None:
    feed = _feed("""
    g (float[N, T] x) => (float[M, 512] y) <int64[2] s = {1, 512}> { y = Reshape(x, s) }""")
    assert feed["x"].shape == (1, 512)


def test_arguments_given_as_inputs_get_mild_values() -> None:
    feed = _feed("g (float[4, 1, 3] x, int64[1] k) => (float[A, B] y) { y = Squeeze(x, k) }")
    assert feed["k"].tolist() == [1]
    feed = _feed("g (float[3] x, int64[2] axes) => (float[A, B, C] y) { y = Unsqueeze(x, axes) }")
    assert sorted(feed["axes"].tolist()) == [0, 1]


def test_text_flags_bytes_sequences_and_optionals() -> None:
    feed: Any = _feed("""
    g (string[N] t, bool[1] use_cache, bool[N] key_mask, uint8[N, 50] raw, seq(float[3]) q,
       optional(float[2]) o)
    => (string[N] a, bool[1] b, bool[N] c, uint8[N, 50] d, float[K] e, bool f)
    { a = Identity(t) b = Not(use_cache) c = Not(key_mask) d = Identity(raw)
      e = ConcatFromSequence<axis = 0>(q) f = OptionalHasElement(o) }""")
    assert feed["t"].tolist() == ["a"]
    assert not feed["use_cache"].any()
    assert feed["key_mask"].all()
    assert feed["raw"].max() > 128
    assert [part.shape for part in feed["q"]] == [(3,), (3,)]
    assert "o" not in feed


def test_positions_count_up() -> None:
    feed = _feed("g (int64[N, S] position_ids) => (int64[N, S] y) { y = Identity(position_ids) }")
    assert feed["position_ids"].tolist() == [list(range(16))]


def test_defaults_are_not_fed() -> None:
    feed = _feed(
        "g (float[2] x, float[2] c) => (float[2] y) <float[2] c = {1.0, 2.0}> { y = Mul(x, c) }"
    )
    assert list(feed) == ["x"]


def test_a_model_that_nothing_fits_says_what_was_tried() -> None:
    model = _model("""
    g (float[N, 1, H, W] x) => (float[M] y) <int64[1] s = {7919}> { y = Reshape(x, s) }""")
    with pytest.raises(RuntimeUnavailable, match=r"tried image sizes 224, 32, .* lengths 16; give"):
        synthesize(model)


def test_a_missing_operator_is_told_at_once() -> None:
    model = _model("g (float[N] x) => (float[N] y) { y = com.foo.Bar(x) }")
    with pytest.raises(RuntimeUnavailable, match=r"no operator com\.foo::Bar"):
        synthesize(model)
