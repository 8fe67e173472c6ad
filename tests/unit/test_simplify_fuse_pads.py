"""Pad folded into the layer behind it: equal outputs, and refusals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from tests.fusing import check, refused
from tests.quantizing import build

IMAGE, PADDED = "float[N,4,7,7] x", "Conv <pads = [1, 1, 1, 1]>"
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "cw": (5, 4, 3, 3),
    "cw5": (5, 5, 3, 3),
    "zero": np.array(0, np.float32),
    "one": np.array(1, np.float32),
    "p1": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "pc": np.array([0, 1, 1, 1, 0, 0, 1, 1]),
    "crop": np.array([0, 0, -1, 1, 0, 0, 1, 1]),
    "pa": np.array([1, 1]),
    "ax": np.array([3]),
    "lowest": np.array(-np.inf, np.float32),
}


def model(nodes: str, y: str, opset: int = 17) -> Model:
    return build(f"net ({IMAGE}) => ({y}) {{ {nodes} }}", WEIGHTS, opset)


PADDINGS = {
    "conv": ("a = Pad(x, p1) y = Conv(a, cw)", "float[N,5,7,7] y", 17),
    "conv that pads": (f"a = Pad(x, p1, zero) y = {PADDED} (a, cw)", "float[N,5,9,9] y", 17),
    "axes": ("a = Pad(x, pa, zero, ax) y = Conv(a, cw)", "float[N,5,5,7] y", 18),
    "old": ("a = Pad <pads = [0,0,1,1,0,0,1,1]> (x) y = Conv(a, cw)", "float[N,5,7,7] y", 9),
    "average": (
        "a = Pad(x, p1) y = AveragePool <kernel_shape = [2, 2]> (a)", "float[N,4,8,8] y", 17,
    ),
    "average that counts": (
        "a = Pad(x, p1) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], "
        "count_include_pad = 1> (a)", "float[N,4,9,9] y", 17,
    ),
    "maximum": (
        "a = Pad(x, p1, lowest) y = MaxPool <kernel_shape = [3, 3]> (a)", "float[N,4,7,7] y", 17,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PADDINGS)
def test_a_pad_goes_into_the_layer(name: str) -> None:
    nodes, y, opset = PADDINGS[name]
    one = model(nodes, y, opset)
    check(one, "pad-into-layer", [ir.op(list(one.graph)[-1])])


def test_zeros_are_no_larger_than_what_is_positive() -> None:
    nodes = "r = Relu(x) a = Pad(r, p1) y = MaxPool <kernel_shape = [3, 3]> (a)"
    check(model(nodes, "float[N,4,7,7] y"), "pad-into-layer", ["Relu", "MaxPool"])


NOT_PADDED = {
    "channels": ("a = Pad(x, pc) y = Conv(a, cw5)", "float[N,5,7,7] y", "batch or the channels"),
    "crop": ("a = Pad(x, crop) y = Conv(a, cw)", "float[N,5,5,7] y", "negative pads"),
    "number": ("a = Pad(x, p1, one) y = Conv(a, cw)", "float[N,5,7,7] y", "with zeros, not with 1"),
    "mode": ('a = Pad <mode = "reflect"> (x, p1) y = Conv(a, cw)', "float[N,5,7,7] y", "mode"),
    "zero for a maximum": (
        "a = Pad(x, p1) y = MaxPool <kernel_shape = [3, 3]> (a)", "float[N,4,7,7] y",
        "lowest number",
    ),
    "uncounted": (
        "a = Pad(x, p1) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
        "float[N,4,9,9] y", "does not count its padding",
    ),
    "wide": (
        "a = Pad(x, p1, lowest) y = MaxPool <kernel_shape = [1, 1]> (a)", "float[N,4,9,9] y",
        "as wide as the kernel",
    ),
    "up": (
        "a = Pad(x, p1) y = AveragePool <kernel_shape = [3, 3], ceil_mode = 1> (a)",
        "float[N,4,7,7] y", "rounds its size up",
    ),
    "auto": (
        'a = Pad(x, p1) y = Conv <auto_pad = "SAME_UPPER"> (a, cw)', "float[N,5,9,9] y", "auto_pad",
    ),
    "read twice": (
        "a = Pad(x, p1) d = Conv(a, cw) e = Conv(a, cw) y = Add(d, e)", "float[N,5,7,7] y",
        "read elsewhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PADDED)
def test_a_pad_that_the_layer_cannot_do_stays(name: str) -> None:
    nodes, y, reason = NOT_PADDED[name]
    refused(model(nodes, y), "pad-into-layer", reason)
