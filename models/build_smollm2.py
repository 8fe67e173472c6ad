"""SmolLM2-135M as an ONNX graph, from its GGUF file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray

from models.catalog import Recipe
from models.llama import Llama, LlamaBuilder
from models.packages import Store

Array = NDArray[Any]
SMOLLM2 = Llama(
    "smollm2_135m",
    layers=30,
    width=576,
    heads=9,
    kv_heads=3,
    inner=1536,
    vocabulary=49152,
    rope_base=100000.0,
    positions=2048,
)


def read_gguf(recipe: Recipe, store: Store) -> GGUFReader:
    """The GGUF file of the package; its arrays stay mapped after the file is gone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(store.open(recipe.package).read(recipe.member))
        return GGUFReader(path)


def weights(reader: GGUFReader) -> dict[str, Array]:
    """Every tensor in float32 under its GGUF name; linear weights are [out,in]."""
    found = {
        tensor.name: np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        for tensor in reader.tensors
    }
    for number in range(SMOLLM2.layers):
        for part, heads in (("attn_q", SMOLLM2.heads), ("attn_k", SMOLLM2.kv_heads)):
            name = f"blk.{number}.{part}.weight"
            found[name] = halves(found[name], heads)
    return found


def halves(weight: Array, heads: int) -> Array:
    """Rows of a query or key weight from GGUF's interleaved pairs to first and second half."""
    split = weight.reshape(heads, SMOLLM2.head // 2, 2, SMOLLM2.width)
    return split.transpose(0, 2, 1, 3).reshape(weight.shape)


def build(recipe: Recipe, store: Store, target: Path) -> None:
    """Writes the decoder: input_ids [B,S], S at most 2048 -> logits [B,S,49152]."""
    state = weights(read_gguf(recipe, store))
    onnx.save(LlamaBuilder(SMOLLM2, state).network(), target)
