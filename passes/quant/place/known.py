"""What was found out about a float model, for a pass that is sent back to the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from onnxslim.ir import Model
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.place.costs import Costs
from onnxslim.passes.quant.place.fitted import Fitted
from onnxslim.pipeline.base import Context


@dataclass(frozen=True)
class Known:
    """By the choices that it holds for; nothing of it depends on what is asked for."""

    scores: dict[Choices, float] = field(default_factory=dict["Choices", float])
    noise: dict[Choices, Mapping[str, float]] = field(
        default_factory=dict["Choices", "Mapping[str, float]"]
    )
    rounding: dict[Choices, Mapping[str, float]] = field(
        default_factory=dict["Choices", "Mapping[str, float]"]
    )
    costs: dict[Choices, Costs] = field(default_factory=dict["Choices", Costs])
    fitted: dict[Choices, tuple[Fitted, Model]] = field(
        default_factory=dict["Choices", "tuple[Fitted, Model]"]
    )
    faster: dict[Choices, tuple[Choices, Mapping[str, str]]] = field(
        default_factory=dict["Choices", "tuple[Choices, Mapping[str, str]]"]
    )


def known_of(ctx: Context, key: object) -> Known:
    """What the context remembers under a key: of the model before the pass, and of the options
    that the rest depends on."""
    return cast("Known", ctx.memory.setdefault(key, Known()))
