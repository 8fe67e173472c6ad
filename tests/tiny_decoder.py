"""A Llama decoder of two layers with random weights."""

from __future__ import annotations

import numpy as np

from models.llama import Llama, LlamaBuilder
from onnxslim import ir
from onnxslim.ir import Array, Model

SIZES = Llama("tiny", 2, 64, 4, 2, 96, 50, 1e4, 40)


def decoder(sizes: Llama = SIZES) -> Model:
    """Two layers with random weights: 4 query heads of 16 that share 2 key and value heads."""
    rng = np.random.default_rng(0)
    width, inner, shared = sizes.width, sizes.inner, sizes.head * sizes.kv_heads
    shapes = {
        "attn_q": (width, width), "attn_k": (shared, width), "attn_v": (shared, width),
        "attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width),
        "ffn_down": (width, inner), "attn_norm": (width,), "ffn_norm": (width,),
    }  # fmt: skip
    names = {f"blk.{i}.{k}": shape for i in range(sizes.layers) for k, shape in shapes.items()}
    names |= {"token_embd": (sizes.vocabulary, width), "output_norm": (width,)}
    state: dict[str, Array] = {
        f"{name}.weight": (rng.normal(size=shape) * shape[-1] ** -0.5).astype(np.float32)
        for name, shape in names.items()
    }
    return ir.load(LlamaBuilder(sizes, state).network())
