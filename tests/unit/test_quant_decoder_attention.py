"""Causal attention of a decoder becomes one operator where the target has it; numbers stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import onnxslim
from models.llama import Llama
from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.canonical import canonicalize
from onnxslim.passes.quant.prepare.decoder_attention import CAUSAL_ATTENTION
from onnxslim.rewrite import Outcome, apply
from tests.quantizing import kernels, operators, outputs, quantize
from tests.tiny_decoder import decoder

ATTENTION = "com.microsoft::GroupQueryAttention"


def simplified() -> Model:
    return onnxslim.compress(decoder(), passes="simplify", check=False).model


def fused(model: Model) -> Outcome:
    outcome = apply(Editor(model), (CAUSAL_ATTENTION,))
    Editor(model).remove_dead()
    ir.verify(model)
    return outcome


def ids(batch: int, length: int) -> dict[str, Array]:
    return {"input_ids": np.random.default_rng(length).integers(0, 50, (batch, length))}


@pytest.mark.parametrize("simple", [False, True])
def test_attention_becomes_one_operator_with_the_same_numbers(simple: bool) -> None:
    before, model = ((simplified if simple else decoder)() for _ in range(2))
    assert fused(model).applied == {"causal-attention": 2}
    found = operators(model)
    assert found[ATTENTION] == 2
    assert found["Softmax"] == found["Concat"] == found["Trilu"] == found["Split"] == 0
    assert found["Expand"] == 1  # the lengths
    for shape in ((1, 1), (1, 9), (3, 5), (2, 40)):
        want, got = (outputs(m, ids(*shape))[0] for m in (before, model))
        # float32 sums in another order, of numbers near 1
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_lengths_and_tables_are_there_once() -> None:
    model = simplified()
    fused(model)
    nodes = [node for node in ir.nodes(model) if ir.op(node) == ATTENTION]
    assert [list(node.inputs[5:]) for node in nodes] == [list(nodes[0].inputs[5:])] * 2
    held = [n for n, v in model.graph.initializers.items() if tuple(v.shape or ()) == (40, 8)]
    assert len(held) == 2


def _edit(name: str, change: Callable[[Array], Array]) -> Model:
    model = decoder()
    held = model.graph.initializers[name]
    Editor(model).replace_initializer(held, change(np.array(ir.array(held))))
    return model


def _one_angle(table: Array) -> Array:
    table[3, 5] = 0.5
    return table


def _near() -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.llama.MASKED", -3.0)
        return decoder()


LEFT: dict[str, tuple[Callable[[], Model], str]] = {
    "halves turn apart": (lambda: _edit("rope.sin", _one_angle), "turn by different angles"),
    "hides the query itself": (lambda: _edit("one", np.zeros_like), "not known to be causal"),
    "lets a little through": (_near, "not known to be causal"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_something_else_stays_with_the_reason(name: str) -> None:
    make, reason = LEFT[name]
    model = make()
    text = ir.to_text(model)
    missed = fused(model).near_misses
    assert len(missed) == 2
    assert all(miss.reason.endswith(reason) for miss in missed)
    assert ir.to_text(model) == text


def test_heads_of_a_size_that_the_operator_does_not_turn_stay() -> None:
    model = decoder(Llama("tiny", 1, 96, 4, 2, 96, 50, 1e4, 40))
    (missed,) = fused(model).near_misses
    assert missed.reason == "its heads of 24 numbers are no multiple of 16"


# Its products


def packed(model: Model, *, named: bool = False) -> Model:
    canonicalize(Editor(model), {ATTENTION}, named=named)
    ir.verify(model)
    return model


def test_queries_keys_and_values_become_one_product() -> None:
    before, model = simplified(), packed(simplified())
    assert operators(before)["MatMul"] - operators(model)["MatMul"] == 2 * (2 + 2)
    node = next(node for node in ir.nodes(model) if ir.op(node) == ATTENTION)
    assert list(node.inputs[1:3]) == [None, None]
    shape = Facts(model).shape(node.outputs[0])
    assert [str(size) for size in shape or ()] == ["batch", "sequence", "64"]
    for sizes in ((1, 1), (3, 9)):
        want, got = (outputs(m, ids(*sizes))[0] for m in (before, model))
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_layers_that_options_name_stay_apart() -> None:
    model = packed(simplified(), named=True)
    nodes = [node for node in ir.nodes(model) if ir.op(node) == ATTENTION]
    assert len(nodes) == 2
    assert all(node.inputs[1] is not None for node in nodes)


# In the pass


def test_quant_fuses_it_beside_weights_in_codes() -> None:
    before, model = (simplified() for _ in range(2))
    result = quantize(model, scheme="weight")
    assert kernels(model)["GroupQueryAttention"] == 2
    assert any(ATTENTION in note for note in result.notes)
    want, got = (outputs(m, ids(2, 9))[0] for m in (before, model))
    noise = float(np.square(got - want).sum() / np.square(want).sum())
    assert 10 * np.log10(1 / noise) > 30  # a wrong mask or angle gives less than 10


def test_portable_models_keep_it_written_out() -> None:
    model = simplified()
    assert quantize(model, scheme="weight", portable=True).layers
    assert operators(model)[ATTENTION] == 0
