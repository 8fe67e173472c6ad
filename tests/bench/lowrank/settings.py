"""What is measured: pipelines by model, and what each shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A pipeline; `beside` also makes the baselines' factors at the ranks that it chooses."""

    passes: str
    beside: bool = False


SWEEP = (0.99, 0.98, 0.97, 0.95)
"""Shares of the MACs for nets of depthwise convolutions, which resist."""

LINEAR = 0.8
"""Share of the parameters of a language model's linear layers that stays."""

SMOLLM_LINEAR, SMOLLM_ALL = 106_168_320, 134_515_008
"""Parameters of SmolLM2-135M: 30 layers of 576 x (576 + 192 + 192 + 576) and 3 x 576 x 1536, and
all. The budget counts all; what goes is a fifth of the first number."""

SMOLLM = round(1 - (1 - LINEAR) * SMOLLM_LINEAR / SMOLLM_ALL, 4)

LANGUAGE = "measure=false refit=false skip=/token_embd/*"
"""No timing of pairs for a budget of parameters, no refit, whose moments would take gigabytes."""

DECODER = f"lowrank{{params={SMOLLM} {LANGUAGE}}}"

SETTINGS: Mapping[str, tuple[Setting, ...]] = {
    "fashion_vgg": (
        Setting("lowrank{ratio=0.5}", beside=True),
        Setting("lowrank{ratio=0.33}", beside=True),
        Setting("lowrank{latency=0.5}"),
        Setting("quant"),
        Setting("lowrank{ratio=0.5},quant"),
        Setting("quant,lowrank{ratio=0.5}"),
        Setting("prune{ratio=0.6}"),
        Setting("prune,lowrank{ratio=0.7},quant"),
    ),
    "fashion_resnet": (
        Setting("lowrank{ratio=0.65}", beside=True),
        Setting("quant"),
        Setting("lowrank{ratio=0.65},quant"),
        Setting("prune{ratio=0.65}"),
        Setting("prune{ratio=0.8},lowrank{ratio=0.8},quant"),
    ),
    "efficientnet_lite0_photos": tuple(
        Setting(f"lowrank{{ratio={r} measure=false}}") for r in SWEEP
    ),
    "minilm_l6_texts": (
        Setting("lowrank{params=0.8}"),  # which cuts the table alone, in which baselines agree
        Setting("lowrank{ratio=0.9}", beside=True),
        Setting("quant"),
        Setting("lowrank{params=0.8},quant"),
        Setting("prune{share=0.15 only=hidden}"),
    ),
    "smollm2_135m_texts": (Setting(DECODER, beside=True),),
}
