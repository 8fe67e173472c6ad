"""QuantizeLinear + DequantizeLinear with one scale for all -> one function with its gradient.

Written out it is about twenty passes over a tensor, there and back; here it is eight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Call
from onnxslim.passes.distill.graph.ops.quantization import limits
from onnxslim.passes.distill.graph.step import Step

FUSED = "QuantizeLinear+DequantizeLinear"


def fused(
    steps: Sequence[Step], values: Mapping[str, Tensor], outputs: Sequence[str]
) -> list[Step]:
    """The steps with every such pair as one; `values` are the constants, `outputs` the model's."""
    makers = {name: step for step in steps for name in step.outputs}
    found: list[Step] = []
    for step in steps:
        source = step.inputs[0] if step.op == "DequantizeLinear" else None
        maker = makers.get(source) if source is not None else None
        if maker is None or not _fits(maker, step, values):
            found.append(step)
            continue
        inputs, attributes, version = maker.inputs, maker.attributes, maker.version
        found.append(Step(run_fused, FUSED, inputs, step.outputs, attributes, version))
    used = Counter(name for step in found for name in step.inputs)
    return [
        step for step in found
        if step.op != "QuantizeLinear" or used[step.outputs[0]] or step.outputs[0] in outputs
    ]  # fmt: skip


def _fits(one: Step, two: Step, values: Mapping[str, Tensor]) -> bool:
    if one.op != "QuantizeLinear" or limits(one.attributes) is None:
        return False
    for index in (1, 2):
        names = [step.inputs[index] if len(step.inputs) > index else None for step in (one, two)]
        if names == [None, None] and index == 2:
            continue
        own = [None if name is None else values.get(name) for name in names]
        if own[0] is None or own[1] is None or own[0].numel() != 1 or own[1].numel() != 1:
            return False
        if float(own[0]) != float(own[1]):
            return False
    return True


def run_fused(call: Call) -> Tensor:
    """x rounded to the grid of its scale and zero point."""
    zero = call.get(2)
    found = limits(call.attributes)
    assert found is not None
    shift = 0 if zero is None else int(zero)
    return _Rounded.apply(call[0], call[1].reshape(()), shift, *found)


class _Rounded(torch.autograd.Function):  # type: ignore[misc] # torch is not typed here
    """x on a grid; the gradients are those of LSQ (Esser et al. 2020, eq. 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        """scale * (clamp(round(x / scale) + zero, low, high) - zero)."""
        whole = torch.div(x, scale).round_()
        clamped = whole.clamp(low - zero, high - zero)
        inside = clamped == whole
        y = clamped.mul_(scale)
        ctx.save_for_backward(x, y, inside, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """x gets all inside the grid; the scale (y - x) / scale there, and y / scale outside."""
        x, y, inside, scale = ctx.saved_tensors
        passed = torch.where(inside, gradient, 0.0)
        own = None
        if ctx.needs_input_grad[1]:
            own = (_inner(gradient, y) - _inner(passed, x)) / scale
        return passed, own, None, None, None


def _inner(one: Tensor, two: Tensor) -> Tensor:
    """The sum of products, without a product in memory where both lie alike."""
    if one.stride() == two.stride() and one.dim() == 4:
        one, two = (t.permute(0, 2, 3, 1) for t in (one, two))
        if not one.is_contiguous():
            one, two = (t.permute(0, 3, 1, 2) for t in (one, two))
    return torch.dot(one.reshape(-1), two.reshape(-1))
