"""What a runtime fuses and runs fast, as data. Passes read it and hold no such rule themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from onnxslim.targets.assumed import ASSUMED, Assumed
from onnxslim.targets.forms import BLOCKS, DEFAULT, Blocks, Form

Role = Literal["linear", "compute", "move", "absorbed", "residual"]
Output = Literal["required", "optional", "float", "same", "absorbed"]


@dataclass(frozen=True)
class StaticRule:
    """How one operator takes part in static int8.

    `role`: *linear* multiplies by a constant weight and is worth quantizing by itself; *compute*
    has an int8 kernel and is worth it only between int8 neighbours; *move* rearranges integers
    without reading them; *absorbed* costs nothing before a QuantizeLinear that saturates alike;
    *residual* is fused with the linear layer that makes one input, and reads integers at the other.
    `output`: whether the kernel needs a QuantizeLinear after it (*required*), works with or
    without (*optional*), is better without (*float*), or keeps its input's parameters (*same*).
    `least_group` does not count for depthwise layers (one input and one output per group), which
    have kernels of their own. `stem`: a layer that reads an input of the model is faster in float
    up to so many inputs and outputs, as there is a conversion either way.
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
    per_channel: bool = True  # whether the weight may have one scale per output channel
    constants: bool = False  # whether one of the activations may be a constant
    products: bool = False  # whether the weight may be computed: then both inputs are activations
    least_group: int = 1  # inputs per group; grouped layers with fewer are faster in float
    stem: tuple[int, int] = (0, 0)  # see above
    floor: float = -math.inf  # inputs below it give the same result as this one


@dataclass(frozen=True)
class Target:
    """One runtime on one kind of machine.

    `rank_multiple`: ranks and channels that dense fp32 kernels run fast; `conv_multiple`: the same
    for convolutions, whose channels are blocked; `conv_block`: a block: with fewer channels the
    layout is changed back before. `forms` are the schemes of static quantization that it runs and
    how it wants them; `form` is the one that is written now; `blocks` is how it wants weights
    alone. `local`: ONNX Runtime here shows what the target makes of a model; otherwise kernels
    found here tell nothing about it. `elsewhere`: it does so on another processor. `assumed`: how
    fast it is taken to be where it is not there to be timed.
    """

    name: str
    rank_multiple: int = 8
    conv_multiple: int = 16
    conv_block: int = 8
    static: Mapping[str, StaticRule] = field(default_factory=dict[str, StaticRule])
    dynamic: Mapping[str, str] = field(default_factory=dict[str, str])  # operator -> kernel
    form: Form = DEFAULT
    forms: Mapping[str, Form] = field(default_factory=lambda: {"int8": DEFAULT})
    blocks: Blocks = BLOCKS
    local: bool = True
    elsewhere: bool = False
    assumed: Assumed = ASSUMED
    dequantize_folds: frozenset[str] = frozenset()  # kernels that read integers by themselves
    fused: frozenset[str] = frozenset()  # operators that are no slower than written out
    half: frozenset[str] = frozenset()  # schemes of 16-bit floats that it gains speed by: "fp16"
    schemes: frozenset[str] | None = None  # of quant; None for all that quant has
    rounds: frozenset[str] = frozenset()  # float layers it quantizes itself between DQ and Q
    own: Mapping[str, str] = field(default_factory=dict[str, str])  # see below

    @property
    def here(self) -> bool:
        """Whether times and sums of integers that are found on this machine are the target's."""
        return self.local and not self.elsewhere

    def portable(self) -> Target:
        """This target without `own`: operator -> the runtime's own one that it is written as, which
        is faster than what the runtime makes of standard ones, and which no other runtime reads."""
        dynamic = {op: kernel for op, kernel in self.dynamic.items() if op not in self.own}
        return replace(self, own={}, dynamic=dynamic)

    def written(self, scheme: str) -> Target:
        """This target as it is to be written for a scheme of static quantization; `auto` is int8.

        Raises KeyError where `forms` lacks the scheme.
        """
        return replace(self, form=self.forms["int8" if scheme == "auto" else scheme])
