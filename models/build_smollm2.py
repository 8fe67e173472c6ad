"""SmolLM2-135M as an ONNX graph, from its GGUF file.

A Llama decoder (Touvron et al., 2023): RMSNorm and SiLU decomposed, rotary embeddings (Su et al.,
2021) from tables of cosines and sines, 9 query heads that share 3 key and value heads by Expand,
and the embedding tied to the output through Transpose.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from onnx import TensorProto

from models.catalog import Recipe
from models.graphs import GraphBuilder
from models.packages import Store

Array = NDArray[Any]
LAYERS, WIDTH, HEADS, KV_HEADS = 30, 576, 9, 3
HEAD = WIDTH // HEADS
SHARED = HEADS // KV_HEADS
VOCABULARY = 49152
EPSILON = 1e-5
ROPE_BASE = 100000.0
POSITIONS = 2048
MASKED = -10000.0


def read_gguf(recipe: Recipe, store: Store) -> GGUFReader:
    """The GGUF file of the package; its arrays stay mapped after the file is gone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(store.open(recipe.package).read(recipe.member))
        return GGUFReader(path)


def weights(reader: GGUFReader) -> dict[str, Array]:
    """Every tensor in float32 under its GGUF name; linear weights are [out,in]."""
    return {
        tensor.name: np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        for tensor in reader.tensors
    }


def halves(weight: Array, heads: int) -> Array:
    """Rows of a query or key weight from GGUF's interleaved pairs to first and second half."""
    split = weight.reshape(heads, HEAD // 2, 2, WIDTH)
    return split.transpose(0, 2, 1, 3).reshape(weight.shape)


def rope_tables() -> tuple[Array, Array]:
    """Cosine and sine [positions, head]; both halves of a head turn by the same angles."""
    rates = ROPE_BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    angles = np.tile(np.outer(np.arange(POSITIONS), rates), 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


class LlamaBuilder(GraphBuilder):
    """Adds the layers of a Llama decoder to a graph."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        super().__init__("smollm2_135m")
        self._state = state

    def linear(self, value: str, key: str, array: Array | None = None) -> str:
        """MatMul with the transposed weight."""
        array = self._state[f"{key}.weight"] if array is None else array
        weight = self.weight(f"{key}.weight_t", array.T)
        return self.op("MatMul", value, weight, scope=f"/{key}")

    def norm(self, value: str, key: str) -> str:
        """RMSNorm: x / sqrt(mean(x^2) + epsilon) * weight."""
        scope = f"/{key}"
        square = self.op("Pow", value, self.scalar("two", 2), scope=scope)
        mean = self.op("ReduceMean", square, scope=scope, axes=[-1], keepdims=1)
        mean = self.op("Add", mean, self.scalar("epsilon", EPSILON), scope=scope)
        scaled = self.op("Div", value, self.op("Sqrt", mean, scope=scope), scope=scope)
        weight = self.weight(f"{key}.weight", self._state[f"{key}.weight"])
        return self.op("Mul", scaled, weight, scope=scope)

    def heads(self, value: str, count: int, scope: str) -> str:
        """[B,S,count*64] -> [B,count,S,64]."""
        split = self.reshape(value, 0, 0, count, HEAD, scope=scope)
        return self.op("Transpose", split, scope=scope, perm=[0, 2, 1, 3])

    def rotated(self, value: str, tables: tuple[str, str], scope: str) -> str:
        """x * cos + (-x2, x1) * sin."""
        middle, axis = self.ints(HEAD // 2), self.ints(3)
        first = self.op("Slice", value, self.ints(0), middle, axis, scope=f"{scope}/first")
        last = self.op("Slice", value, middle, self.ints(HEAD), axis, scope=f"{scope}/last")
        negative = self.op("Neg", last, scope=scope)
        turned = self.op("Concat", negative, first, scope=scope, axis=-1)
        cosine = self.op("Mul", value, tables[0], scope=f"{scope}/cos")
        sine = self.op("Mul", turned, tables[1], scope=f"{scope}/sin")
        return self.op("Add", cosine, sine, scope=scope)

    def shared(self, value: str, shape: str, scope: str) -> str:
        """Each key or value head three times: [B,3,S,64] -> [B,9,S,64]."""
        value = self.op("Unsqueeze", value, self.ints(2), scope=scope)
        value = self.op("Expand", value, shape, scope=scope)
        merged = self.op("Concat", *self.merged_shape(), scope=f"{scope}/shape", axis=0)
        return self.op("Reshape", value, merged, scope=scope)

    def merged_shape(self) -> tuple[str, ...]:
        return self.ints(0), self.ints(HEADS), "sequence_length", self.ints(HEAD)

    def attention(self, value: str, key: str) -> str:
        scope, query_key, key_key = f"/{key}/attention", f"{key}.attn_q", f"{key}.attn_k"
        query_weight = halves(self._state[f"{query_key}.weight"], HEADS)
        key_weight = halves(self._state[f"{key_key}.weight"], KV_HEADS)
        query = self.linear(value, query_key, query_weight)
        query = self.heads(query, HEADS, f"{scope}/query")
        query = self.rotated(query, ("cos", "sin"), f"{scope}/query/rope")
        keys = self.heads(self.linear(value, key_key, key_weight), KV_HEADS, f"{scope}/key")
        keys = self.rotated(keys, ("cos", "sin"), f"{scope}/key/rope")
        keys = self.shared(keys, "expanded_shape", f"{scope}/key/shared")
        values = self.heads(self.linear(value, f"{key}.attn_v"), KV_HEADS, f"{scope}/value")
        values = self.shared(values, "expanded_shape", f"{scope}/value/shared")
        context = self.weighted(query, keys, values, scope)
        return self.linear(context, f"{key}.attn_output")

    def weighted(self, query: str, keys: str, values: str, scope: str) -> str:
        """Softmax of the masked, scaled scores, times the values, heads joined again."""
        keys = self.op("Transpose", keys, scope=f"{scope}/scores", perm=[0, 1, 3, 2])
        scores = self.op("MatMul", query, keys, scope=f"{scope}/scores")
        scores = self.op("Mul", scores, self.scalar("head_scale", HEAD**-0.5), scope=scope)
        scores = self.op("Add", scores, "causal_mask", scope=scope)
        scores = self.op("Softmax", scores, scope=scope, axis=-1)
        context = self.op("MatMul", scores, values, scope=f"{scope}/context")
        context = self.op("Transpose", context, scope=scope, perm=[0, 2, 1, 3])
        return self.reshape(context, 0, 0, WIDTH, scope=scope)

    def gated(self, value: str, key: str) -> str:
        """SwiGLU: down(silu(gate(x)) * up(x))."""
        scope = f"/{key}/ffn"
        gate = self.linear(value, f"{key}.ffn_gate")
        silu = self.op("Mul", gate, self.op("Sigmoid", gate, scope=scope), scope=f"{scope}/silu")
        inner = self.op("Mul", silu, self.linear(value, f"{key}.ffn_up"), scope=scope)
        return self.linear(inner, f"{key}.ffn_down")

    def layer(self, value: str, key: str) -> str:
        attended = self.attention(self.norm(value, f"{key}.attn_norm"), key)
        value = self.op("Add", value, attended, scope=f"/{key}/attention/residual")
        inner = self.gated(self.norm(value, f"{key}.ffn_norm"), key)
        return self.op("Add", value, inner, scope=f"/{key}/ffn/residual")

    def shapes(self) -> None:
        """Names `sequence_length` [1] and `expanded_shape` [5], which all layers share."""
        length = {"output": "sequence_length"}
        self.op("Shape", "input_ids", scope="/sequence", start=1, end=2, **length)
        batch = self.op("Shape", "input_ids", scope="/batch", start=0, end=1)
        sizes = (batch, self.ints(KV_HEADS), self.ints(SHARED), "sequence_length")
        self.op("Concat", *sizes, self.ints(HEAD), scope="/", axis=0, output="expanded_shape")

    def tables(self) -> None:
        """Names `cos` and `sin` [S,64] and `causal_mask` [S,S]."""
        start, axis = self.ints(0), self.ints(0)
        for name, table in zip(("cos", "sin"), rope_tables(), strict=True):
            whole = self.weight(f"rope.{name}", table)
            ends = (start, "sequence_length", axis)
            self.op("Slice", whole, *ends, scope=f"/{name}", output=name)
        square = ("sequence_length", "sequence_length")
        shape = self.op("Concat", *square, scope="/mask/shape", axis=0)
        fill = onnx.numpy_helper.from_array(np.array([MASKED], np.float32))
        full = self.op("ConstantOfShape", shape, scope="/mask", value=fill)
        above = self.weight("one", np.array(1, np.int64))
        self.op("Trilu", full, above, scope="/mask", upper=1, output="causal_mask")

    def network(self) -> onnx.ModelProto:
        self.shapes()
        self.tables()
        embedding = self.weight("token_embd.weight", self._state["token_embd.weight"])
        value = self.op("Gather", embedding, "input_ids", scope="/token_embd")
        for number in range(LAYERS):
            value = self.layer(value, f"blk.{number}")
        value = self.norm(value, "output_norm")
        tied = self.op("Transpose", embedding, scope="/output", perm=[1, 0])
        self.op("MatMul", value, tied, scope="/output", output="logits")
        inputs = {"input_ids": (TensorProto.INT64, ("batch", "sequence"))}
        return self.model(inputs, {"logits": ("batch", "sequence", VOCABULARY)})


def build(recipe: Recipe, store: Store, target: Path) -> None:
    """Writes the decoder: input_ids [B,S], S at most 2048 -> logits [B,S,49152]."""
    onnx.save(LlamaBuilder(weights(read_gguf(recipe, store))).network(), target)
