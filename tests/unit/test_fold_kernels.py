"""What numpy computes in folding is what ONNX Runtime computes, bit by bit; else it declines."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.passes.fold.kernels import KERNELS, compute
from onnxslim.runtime.session import open_session

F, D, L = np.float32, np.float64, np.int64
X = np.array([[1.5, -2.25, 0.1], [np.inf, -0.0, 3e38]], F)
N = np.array([[7, -7, 3], [-3, 100, -1]], L)
T = np.array([True, False, True])


def ints(*values: int) -> Array:
    return np.array(values, L)


CASES: list[tuple[str, Sequence[Array | None], dict[str, Any]]] = [
    ("Add", (X, X[0]), {}),
    ("Add", (N, ints(2**62, 2**62, 1)), {}),
    ("Sub", (X, X[0]), {}),
    ("Mul", (X, np.array(0.3, F)), {}),
    ("Mul", (X.astype(D), np.array(0.3, D)), {}),
    ("Div", (X, np.array(0.3, F)), {}),
    ("Div", (N, ints(2, 3, -4)), {}),
    ("Div", (np.array([7, 9], np.uint8), np.array([2, 4], np.uint8)), {}),
    ("Mod", (N, ints(3, 4, -4)), {}),
    ("Mod", (N, ints(3, 4, -4)), {"fmod": 1}),
    ("Pow", (np.array([32, 0.7], F), np.array(-0.5, F)), {}),
    ("Sqrt", (np.abs(X),), {}),
    ("Neg", (X,), {}),
    ("Neg", (N,), {}),
    ("Abs", (N,), {}),
    ("Floor", (X,), {}),
    ("Ceil", (X,), {}),
    ("Not", (T,), {}),
    ("And", (T, np.array([True, True, False])), {}),
    ("Or", (T, np.array(False)), {}),
    ("Xor", (T, T[:1]), {}),
    ("Equal", (X, X[1]), {}),
    ("Equal", (T, T[:1]), {}),
    ("Less", (N, ints(3)), {}),
    ("LessOrEqual", (X, X[0]), {}),
    ("Greater", (X, X[0]), {}),
    ("GreaterOrEqual", (N, ints(3)), {}),
    ("Min", (N, ints(3)), {}),
    ("Max", (X[0], np.array([0.5], F), np.array(-1, F)), {}),
    ("Where", (T, X, np.array(7, F)), {}),
    ("Cast", (X,), {"to": 11}),
    ("Cast", (np.array([1.9, -1.9, 2**40], D),), {"to": 7}),
    ("Cast", (N,), {"to": 3}),
    ("Cast", (N,), {"to": 9}),
    ("Cast", (ints(2**53 + 1, 2**60 + 3),), {"to": 1}),
    ("Cast", (np.array([0.1, 1e-50, 1e300], D),), {"to": 1}),
    ("Concat", (X, X), {"axis": -1}),
    ("ConstantOfShape", (ints(2, 0, 3),), {}),
    ("Expand", (X[0], ints(2, 1, 1)), {}),
    ("Flatten", (X,), {"axis": 0}),
    ("Gather", (X, np.array([[0, -1]], L)), {"axis": 1}),
    ("Gather", (ints(4, 5), np.array(1, L)), {}),
    ("Identity", (X,), {}),
    ("Range", (np.array(7, L), np.array(-4, L), np.array(-3, L)), {}),
    ("Reshape", (X, ints(0, -1, 1)), {}),
    ("ScatterND", (N, np.array([[0, 1], [-1, -1]], L), ints(5, 6)), {}),
    ("ScatterND", (N, np.array([[1]], L), N[:1]), {}),
    ("Slice", (X, ints(-1), ints(-100), ints(1), ints(-2)), {}),
    ("Slice", (X, ints(0, 1), ints(2**62, -1)), {}),
    ("Slice", (X, ints(5), ints(-(2**63)), ints(-1), ints(-1)), {}),
    ("Slice", (X, ints(2), ints(1), ints(1)), {}),
    ("Squeeze", (X[:1],), {}),
    ("Squeeze", (X[:1], ints(-2)), {}),
    ("Tile", (X, ints(2, 1)), {}),
    ("Transpose", (np.array(2.5, F),), {}),
    ("Transpose", (X.reshape(1, 2, 3),), {"perm": [2, 0, 1]}),
    ("Unsqueeze", (X, ints(-1, 0)), {}),
]


def make(op: str, inputs: Sequence[Array | None], attributes: dict[str, Any]) -> ir.Model:
    """A model of one node over initializers, opset 17."""
    model = ir.parse_text('<ir_version: 8, opset_import: ["" : 17]> g () => () {}')
    editor = ir.Editor(model)
    values = [None if a is None else editor.initializer(model.graph, "c", a) for a in inputs]
    node = editor.node(op, values, outputs=["y"], attributes=attributes)
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])
    return model


KernelCase = tuple[str, Sequence[Array | None], dict[str, Any]]


def _each(cases: Sequence[KernelCase]) -> pytest.MarkDecorator:
    """A test for each operator and its inputs, with an identifier that stays."""
    ids = [f"{op}-{zlib.crc32(repr(rest).encode()):x}" for op, *rest in cases]
    return pytest.mark.parametrize(("op", "inputs", "attributes"), cases, ids=ids)


@_each(CASES)
def test_bits_are_those_of_the_runtime(
    op: str, inputs: Sequence[Array | None], attributes: dict[str, Any]
) -> None:
    model = make(op, inputs, attributes)
    (node,) = model.graph
    found = compute(node, inputs, 17)
    (expected,) = open_session(model, optimize="none").run({}).values()
    assert found is not None
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_every_kernel_is_compared() -> None:
    assert {op for op, *_ in CASES} == set(KERNELS)


NAN = np.array([np.nan, 1], F)

DECLINED: list[KernelCase] = [
    ("Add", (X[0].astype(np.float16), X[0].astype(np.float16)), {}),
    ("Div", (N, ints(1, 0, 1)), {}),
    ("Div", (N, ints(1, -1, 1)), {}),
    ("Mod", (N, ints(1, 0, 1)), {}),
    ("Max", (NAN, NAN), {}),
    ("Min", (np.array([0.0], F), np.array([-0.0], F)), {}),
    ("Cast", (NAN,), {"to": 7}),
    ("Cast", (np.array([2.0**63], D),), {"to": 7}),
    ("Cast", (X,), {"to": 10}),
    ("Pow", (np.array([-2], F), np.array(0.5, F)), {}),
    ("Range", (np.array(0, F), np.array(1, F), np.array(0.1, F)), {}),
    ("Range", (np.array(0, L), np.array(1, L), np.array(0, L)), {}),
    ("Reshape", (X, ints(4, 2)), {}),
    ("Gather", (X, ints(9)), {}),
    ("ScatterND", (N, np.array([[0], [0]], L), N), {}),
    ("ScatterND", (N, np.array([[5]], L), N[:1]), {}),
    ("Sin", (X,), {}),
]


@_each(DECLINED)
def test_what_numpy_cannot_be_sure_of_is_left(
    op: str, inputs: Sequence[Array | None], attributes: dict[str, Any]
) -> None:
    (node,) = make(op, inputs, attributes).graph
    assert compute(node, inputs, 17) is None
