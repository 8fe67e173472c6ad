"""Rules that the tables of several targets share."""

from __future__ import annotations

from dataclasses import replace

from onnxslim.targets.base import Output, StaticRule


def deconv(output: Output, kernel: str) -> StaticRule:
    """ConvTranspose, whose weight has its outputs on the second axis."""
    return StaticRule("linear", output, kernel, weight=1, bias=2, weight_axis=1)


def linear(output: Output, conv: str, gemm: str, matmul: str) -> dict[str, StaticRule]:
    """The operators with a constant weight, by the names of their kernels."""
    return {
        "Conv": StaticRule("linear", output, conv, weight=1, bias=2, weight_axis=0),
        "Gemm": StaticRule(
            "linear",
            output,
            gemm,
            weight=1,
            bias=2,
            attributes={"alpha": (1.0,), "beta": (1.0,), "transA": (0,)},
        ),
        "MatMul": StaticRule("linear", output, matmul, weight=1, weight_axis=1),
    }


def of_activations(rule: StaticRule) -> StaticRule:
    """The same, also for the product of two tensors that are computed."""
    return replace(rule, products=True)


def per_tensor(rule: StaticRule) -> StaticRule:
    """The same with one scale for the whole weight."""
    return replace(rule, per_channel=False)


def computed(kernel: str, output: Output = "required", **more: object) -> StaticRule:
    """An int8 kernel without weights, worth it between int8 neighbours."""
    return StaticRule("compute", output, kernel, **more)  # type: ignore[arg-type]


MOVE = StaticRule("move", "same", "")
"""Rearranges integers without reading them."""

MOVES = dict.fromkeys(("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"), MOVE)
"""The operators that move integers on every runtime so far."""

ACTIVATIONS = dict.fromkeys(("Relu", "Clip"), StaticRule("absorbed", "absorbed", ""))
"""What costs nothing before a QuantizeLinear, or inside of the layer before it."""
