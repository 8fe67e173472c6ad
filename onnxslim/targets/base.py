"""What a runtime fuses and runs fast, as data. Passes read it and hold no such rule themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["linear", "compute", "move", "absorbed"]
Output = Literal["required", "optional", "float", "same", "absorbed"]


@dataclass(frozen=True)
class StaticRule:
    """How one operator takes part in static int8.

    `role`: *linear* multiplies by a constant weight and is worth quantizing by itself; *compute*
    has an int8 kernel and is worth it only between int8 neighbours; *move* rearranges integers
    without reading them; *absorbed* costs nothing before a QuantizeLinear that saturates alike.
    `output`: whether the kernel needs a QuantizeLinear after it (*required*), works with or
    without (*optional*), is better without (*float*), or keeps its input's parameters (*same*).
    """

    role: Role
    output: Output
    kernel: str  # what the runtime makes of it, as seen in its optimized graph
    inputs: tuple[int, ...] | None = (0,)  # activations; None for all inputs
    weight: int | None = None
    bias: int | None = None
    weight_axis: int | None = None  # output channels; None where an attribute decides
    fixed_range: tuple[float, float] | None = None  # of the output, whatever the data
    attributes: Mapping[str, tuple[object, ...]] = field(
        default_factory=dict[str, "tuple[object, ...]"]
    )  # name -> the values with which the kernel is used; others and absent ones are fine
    constants: bool = False  # whether one of the activations may be a constant


@dataclass(frozen=True)
class Target:
    """One runtime on one kind of machine.

    `rank_multiple`: ranks and channels that dense fp32 kernels run fast; `conv_multiple`: the same
    for convolutions, whose channels are blocked.
    """

    name: str
    rank_multiple: int = 8
    conv_multiple: int = 16
    static: Mapping[str, StaticRule] = field(default_factory=dict[str, StaticRule])
    dynamic: Mapping[str, str] = field(default_factory=dict[str, str])  # operator -> kernel
    min_opset: int = 13  # scales per channel
    dequantize_folds: frozenset[str] = frozenset()  # kernels that read integers by themselves
    fused: frozenset[str] = frozenset()  # operators that are no slower than written out
    half: frozenset[str] = frozenset()  # schemes of 16-bit floats that it gains speed by: "fp16"
    schemes: frozenset[str] | None = None  # of quant; None for all that quant has
