"""The networks that are pruned, how far, and what the pass is set beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FP32 = "FP32"
PEER = "Torch-Pruning, group magnitude"
PEER_NORMS = f"{PEER}, BatchNorm statistics anew"
SETTINGS: Mapping[str, str] = {
    "magnitude": "importance=magnitude compensate=false",
    "magnitude, our compensation": "importance=magnitude",
    "ours, no compensation": "compensate=false",
    "ours": "",
}
STEPS = "ours, in 3 steps"
OPTIONS: Mapping[str, str] = {**SETTINGS, STEPS: "schedule=3"}
"""Name -> options of the pass beside those that say how far."""


@dataclass(frozen=True)
class Subject:
    """A network and how far it is pruned. `limit`: the drop that is allowed, in the metric, or of
    the agreement with FP32 from 1. `peer`: how Torch-Pruning gets a torch form, or why not."""

    name: str
    title: str
    goals: tuple[str, ...]  # of one run of the pass each
    limit: float | None  # none is set
    agreement: bool = False
    peer: str = ""
    norms: bool = False  # whether it has BatchNorm
    without_peer: str = ""
    case: str = ""  # where it is another cut of the same network
    settings: tuple[str, ...] = tuple(SETTINGS)

    def passes(self, options: str) -> str:
        """The pipeline of a setting."""
        runs = (f"prune{{{' '.join((goal, options)).strip()}}}" for goal in self.goals)
        return ",".join(("simplify", *runs))


SUBJECTS = (
    Subject("fashion_vgg", "VGG, -50 % MACs", ("ratio=0.5",), 0.007, peer="nets", norms=True),
    Subject(
        "fashion_vgg_quarter",
        "VGG, -75 % MACs",
        ("ratio=0.25",),
        None,
        case="fashion_vgg",
        settings=("ours", STEPS),
        without_peer="see the milder cut",
    ),
    Subject(
        "fashion_resnet", "ResNet-8, -40 % MACs", ("ratio=0.6",), 0.015, peer="nets", norms=True
    ),
    Subject("fashion_vit", "ViT, -50 % of its FFN", ("share=0.5 only=hidden",), 0.015, peer="nets"),
    Subject(
        "efficientnet_lite0_photos",
        "EfficientNet-Lite0, -20 % MACs",
        ("ratio=0.8",),
        0.05,
        agreement=True,
        peer="lite0",
        norms=True,
    ),
    Subject(
        "minilm_l6",
        "MiniLM-L6, -30 % of its FFN, -25 % of its heads",
        ("share=0.3 only=hidden", "share=0.25 only=heads"),
        0.01,
        without_peer="it comes as an ONNX file, without a torch form",
    ),
)
