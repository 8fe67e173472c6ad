"""The decoder in torch, and its training: the same arithmetic as `llama` writes in ONNX."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.llama import EPSILON, Llama


@dataclass(frozen=True)
class Recipe:
    """How the decoder is trained: AdamW, warm-up, then a cosine down to a tenth of `peak`."""

    steps: int = 1000
    batch: int = 8
    length: int = 256
    peak: float = 3e-3
    decay: float = 0.1
    warm_up: int = 60


class Block(nn.Module):
    """RMSNorm, grouped-query attention with rotary embedding; RMSNorm, SwiGLU."""

    def __init__(self, sizes: Llama) -> None:
        super().__init__()
        self.sizes = sizes
        width, kv = sizes.width, sizes.kv_heads * sizes.head
        self.attn_norm = nn.RMSNorm(width, EPSILON)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, kv, bias=False)
        self.attn_v = nn.Linear(width, kv, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, EPSILON)
        self.ffn_gate = nn.Linear(width, sizes.inner, bias=False)
        self.ffn_up = nn.Linear(width, sizes.inner, bias=False)
        self.ffn_down = nn.Linear(sizes.inner, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """[B,S,width] -> the same; cosine and sine are [S,head]."""
        x = x + self.attention(self.attn_norm(x), cosine, sine)
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))

    def attention(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, -1, self.sizes.head)
        query, keys, values = (
            part(x).view(shape).transpose(1, 2) for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        query, keys = (t * cosine + _turned(t) * sine for t in (query, keys))
        shared = self.sizes.heads // self.sizes.kv_heads
        keys, values = (t.repeat_interleave(shared, dim=1) for t in (keys, values))
        context = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return self.attn_output(context.transpose(1, 2).reshape(batch, length, width))


def _turned(x: Tensor) -> Tensor:
    first, last = x.chunk(2, dim=-1)
    return torch.cat((-last, first), dim=-1)


class Decoder(nn.Module):
    """Token ids [B,S] -> logits [B,S,vocabulary]; the embedding is the last layer as well."""

    def __init__(self, sizes: Llama) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(sizes.vocabulary, sizes.width)
        self.blk = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.output_norm = nn.RMSNorm(sizes.width, EPSILON)
        for name, table in zip(("cosine", "sine"), sizes.rope_tables(), strict=True):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x, length = self.token_embd(ids), ids.shape[1]
        for block in self.blk:
            x = block(x, self.cosine[:length], self.sine[:length])
        return F.linear(self.output_norm(x), self.token_embd.weight)


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, as a share of the peak."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.55 + 0.45 * math.cos(math.pi * done)


def train(net: Decoder, recipe: Recipe, ids: Tensor) -> None:
    """Train in place on windows of the stream of tokens `ids`, drawn by torch's own generator."""
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optim = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: rate(recipe, step))
    start, total = time.perf_counter(), 0.0
    for step in range(recipe.steps):
        first = torch.randint(0, len(ids) - recipe.length - 1, (recipe.batch, 1))
        windows = ids[first + torch.arange(recipe.length + 1)]
        logits = net(windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optim.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            seconds = time.perf_counter() - start
            print(
                f"step {step + 1}/{recipe.steps} loss {total / 50:.4f} {seconds:.0f} s", flush=True
            )
            total = 0.0
