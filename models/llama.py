"""A Llama decoder (Touvron et al., 2023) as an ONNX graph of plain operators.

RMSNorm and SiLU decomposed, rotary embeddings (Su et al., 2021) from tables of cosines and sines,
query heads that share key and value heads by Expand, and the embedding tied to the output through
Transpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from models.graphs import GraphBuilder

Array = NDArray[Any]
EPSILON = 1e-5
MASKED = -10000.0


@dataclass(frozen=True)
class Llama:
    """The sizes of a decoder; `rope_base` and `positions` are those of its rotary embedding."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    rope_base: float
    positions: int

    @property
    def head(self) -> int:
        """Numbers in one head."""
        return self.width // self.heads

    def rope_tables(self) -> tuple[Array, Array]:
        """Cosine and sine [positions, head]; both halves of a head turn by the same angles."""
        rates = self.rope_base ** (-np.arange(0, self.head, 2) / self.head)
        angles = np.tile(np.outer(np.arange(self.positions), rates), 2)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


class LlamaBuilder(GraphBuilder):
    """Adds the layers of a decoder to a graph. `state` holds its weights under GGUF's names,
    linear ones [out, in]; heads of queries and keys in first and second halves."""

    def __init__(self, sizes: Llama, state: Mapping[str, Array]) -> None:
        super().__init__(sizes.name)
        self._sizes = sizes
        self._state = state

    def linear(self, value: str, key: str) -> str:
        """MatMul with the transposed weight."""
        weight = self.weight(f"{key}.weight_t", self._state[f"{key}.weight"].T)
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
        """[B,S,count*head] -> [B,count,S,head]."""
        split = self.reshape(value, 0, 0, count, self._sizes.head, scope=scope)
        return self.op("Transpose", split, scope=scope, perm=[0, 2, 1, 3])

    def rotated(self, value: str, tables: tuple[str, str], scope: str) -> str:
        """x * cos + (-x2, x1) * sin."""
        middle, end, axis = (self.ints(n) for n in (self._sizes.head // 2, self._sizes.head, 3))
        first = self.op("Slice", value, self.ints(0), middle, axis, scope=f"{scope}/first")
        last = self.op("Slice", value, middle, end, axis, scope=f"{scope}/last")
        negative = self.op("Neg", last, scope=scope)
        turned = self.op("Concat", negative, first, scope=scope, axis=-1)
        cosine = self.op("Mul", value, tables[0], scope=f"{scope}/cos")
        sine = self.op("Mul", turned, tables[1], scope=f"{scope}/sin")
        return self.op("Add", cosine, sine, scope=scope)

    def shared(self, value: str, shape: str, scope: str) -> str:
        """Each key or value head for all that share it: [B,kv_heads,S,head] -> [B,heads,S,head]."""
        value = self.op("Unsqueeze", value, self.ints(2), scope=scope)
        value = self.op("Expand", value, shape, scope=scope)
        merged = self.op("Concat", *self.merged_shape(), scope=f"{scope}/shape", axis=0)
        return self.op("Reshape", value, merged, scope=scope)

    def merged_shape(self) -> tuple[str, ...]:
        sizes = self._sizes
        return self.ints(0), self.ints(sizes.heads), "sequence_length", self.ints(sizes.head)

    def attention(self, value: str, key: str) -> str:
        scope, query_key, key_key = f"/{key}/attention", f"{key}.attn_q", f"{key}.attn_k"
        count, kv_count = self._sizes.heads, self._sizes.kv_heads
        query = self.heads(self.linear(value, query_key), count, f"{scope}/query")
        query = self.rotated(query, ("cos", "sin"), f"{scope}/query/rope")
        keys = self.heads(self.linear(value, key_key), kv_count, f"{scope}/key")
        keys = self.rotated(keys, ("cos", "sin"), f"{scope}/key/rope")
        keys = self.shared(keys, "expanded_shape", f"{scope}/key/shared")
        values = self.heads(self.linear(value, f"{key}.attn_v"), kv_count, f"{scope}/value")
        values = self.shared(values, "expanded_shape", f"{scope}/value/shared")
        context = self.weighted(query, keys, values, scope)
        return self.linear(context, f"{key}.attn_output")

    def weighted(self, query: str, keys: str, values: str, scope: str) -> str:
        """Softmax of the masked, scaled scores, times the values, heads joined again."""
        keys = self.op("Transpose", keys, scope=f"{scope}/scores", perm=[0, 1, 3, 2])
        scores = self.op("MatMul", query, keys, scope=f"{scope}/scores")
        scale = self.scalar("head_scale", self._sizes.head**-0.5)
        scores = self.op("Mul", scores, scale, scope=scope)
        scores = self.op("Add", scores, "causal_mask", scope=scope)
        scores = self.op("Softmax", scores, scope=scope, axis=-1)
        context = self.op("MatMul", scores, values, scope=f"{scope}/context")
        context = self.op("Transpose", context, scope=scope, perm=[0, 2, 1, 3])
        return self.reshape(context, 0, 0, self._sizes.width, scope=scope)

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
        kv_heads, shared = self._sizes.kv_heads, self._sizes.heads // self._sizes.kv_heads
        sizes = (batch, self.ints(kv_heads), self.ints(shared), "sequence_length")
        head = self.ints(self._sizes.head)
        self.op("Concat", *sizes, head, scope="/", axis=0, output="expanded_shape")

    def tables(self) -> None:
        """Names `cos` and `sin` [S,head] and `causal_mask` [S,S]."""
        start, axis = self.ints(0), self.ints(0)
        for name, table in zip(("cos", "sin"), self._sizes.rope_tables(), strict=True):
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
        """input_ids [B,S] -> logits [B,S,vocabulary]."""
        self.shapes()
        self.tables()
        embedding = self.weight("token_embd.weight", self._state["token_embd.weight"])
        value = self.op("Gather", embedding, "input_ids", scope="/token_embd")
        for number in range(self._sizes.layers):
            value = self.layer(value, f"blk.{number}")
        value = self.norm(value, "output_norm")
        tied = self.op("Transpose", embedding, scope="/output", perm=[1, 0])
        self.op("MatMul", value, tied, scope="/output", output="logits")
        inputs = {"input_ids": (TensorProto.INT64, ("batch", "sequence"))}
        return self.model(inputs, {"logits": ("batch", "sequence", self._sizes.vocabulary)})
