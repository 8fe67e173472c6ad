"""A linear layer fitted to what its activation makes of the original's output.

Minimises E|f(y) - f(H z + b)|^2 for a piecewise linear f by the relaxation of Zhang et al. 2015
(arXiv 1505.06798, section 3.2): with auxiliary outputs t near H z + b,
min E|f(y) - f(t)|^2 + l |t - H z - b|^2, for t in closed form number by number (on each piece),
for H and b by least squares; l rises from loose to tight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.refit.solve import solver

_SCHEDULE = ((0.01, 8), (1.0, 8))  # l and how many rounds; the paper takes 25 each
_RIDGE = 1e-3  # of the mean variance of z
_CHUNK = 1024  # rows, so that what is made of them stays in the processor's cache
_INFINITY = float("inf")


@dataclass(frozen=True)
class Piece:
    """f(t) = slope t + offset from `low` to `high`."""

    low: float
    high: float
    slope: float
    offset: float


Pieces = tuple[Piece, ...]
NOTHING: Pieces = (Piece(-_INFINITY, _INFINITY, 1.0, 0.0),)
"""No activation."""


def apply(pieces: Pieces, t: Array) -> Array:
    """f(t)."""
    inside = [(t >= p.low) & (t <= p.high) for p in pieces]
    return np.select(inside, [p.slope * t + p.offset for p in pieces])


def auxiliary(pieces: Pieces, target: Array, now: Array, weight: float) -> Array:
    """The t of least (target - f(t))^2 + weight (t - now)^2, number by number."""
    best: Array = now
    least: Array = np.full(now.shape, np.inf, now.dtype)
    for piece in pieces:
        free = (piece.slope * (target - piece.offset) + weight * now) / (piece.slope**2 + weight)
        t = np.clip(free, piece.low, piece.high)
        cost = np.square(target - piece.slope * t - piece.offset) + weight * np.square(t - now)
        better = cost < least
        best, least = np.where(better, t, best), np.where(better, cost, least)
    return best


def fit(
    z: Array, y: Array, matrix: Array, bias: Array, pieces: Pieces, share: float
) -> tuple[Array, Array]:
    """H [out, d] and b [out] for rows z [n, d] and y [n, out], from those given.

    `share` is a ridge towards the H given, of the mean variance of z. Cost: n d out per round, in
    float32 within a chunk of rows and float64 between chunks.
    """
    mean: Array = z.mean(axis=0, dtype=np.float64)
    centred = np.subtract(z, mean, dtype=np.float32, casting="same_kind")
    gram: Array = (np.transpose(centred) @ centred).astype(np.float64) / len(z)
    level = float(np.trace(gram)) / len(gram)
    ridge = (share * level if level > 0 else 1.0) * np.eye(len(gram))
    start, target = matrix.astype(np.float64), apply(pieces, y.astype(np.float32))
    found, offset = start, bias.astype(np.float64) + start @ mean
    solve, have = solver(gram + ridge), gram @ np.transpose(start)
    for weight, rounds in _SCHEDULE:
        for _ in range(rounds):
            cross, average = _toward(centred, target, found, offset, pieces, weight)
            found = start + np.transpose(solve(cross - have))
            offset = average
    return found, offset - found @ mean


def work(rows: int, features: int, outputs: int) -> float:
    """The multiply-accumulates of `fit`; those of the system that is solved, which are in float64,
    count twice."""
    each = 2.0 * rows * features * outputs + 2.0 * features**2 * outputs
    return each * sum(rounds for _, rounds in _SCHEDULE)


def _toward(
    centred: Array, target: Array, found: Array, offset: Array, pieces: Pieces, weight: float
) -> tuple[Array, Array]:
    """E[z t^T] [d, out] and E[t] [out] of the auxiliary outputs for H and b at hand."""
    cross, total = np.zeros((found.shape[1], len(found))), np.zeros(len(found))
    narrow, shift = np.transpose(found).astype(np.float32), offset.astype(np.float32)
    for at in range(0, len(centred), _CHUNK):
        some = centred[at : at + _CHUNK]
        t = auxiliary(pieces, target[at : at + _CHUNK], some @ narrow + shift, weight)
        cross += np.transpose(some) @ t
        total += t.sum(axis=0, dtype=np.float64)
    return cross / len(centred), total / len(centred)


def error(z: Array, y: Array, matrix: Array, bias: Array, pieces: Pieces) -> float:
    """E|f(y) - f(H z + b)|^2 over rows."""
    made = apply(pieces, z @ np.transpose(matrix) + bias)
    return float(np.square(made - apply(pieces, y)).sum() / max(len(z), 1))


def after_activation(
    rows: Array, matrix: Array, bias: Array, pieces: Pieces
) -> tuple[Array, Array]:
    """`fit` group by group: rows of (z, y) [groups, n, d + out], H [groups, out, d]."""
    size = matrix.shape[2]
    made = [
        fit(r[:, :size], r[:, size:], m, b, pieces, _RIDGE)
        for r, m, b in zip(rows, matrix, bias, strict=True)
    ]
    return np.stack([m for m, _ in made]), np.stack([b for _, b in made])


def error_after(rows: Array, matrix: Array, bias: Array, pieces: Pieces) -> float:
    """`error` of all groups together."""
    size = matrix.shape[2]
    return sum(
        error(r[:, :size], r[:, size:], m, b, pieces)
        for r, m, b in zip(rows, matrix, bias, strict=True)
    )


def _relu(node: Node) -> Pieces:
    return (Piece(-_INFINITY, 0.0, 0.0, 0.0), Piece(0.0, _INFINITY, 1.0, 0.0))


def _leaky(node: Node) -> Pieces:
    slope = float(ir.attribute(node, "alpha", 0.01))
    return (Piece(-_INFINITY, 0.0, slope, 0.0), Piece(0.0, _INFINITY, 1.0, 0.0))


def _clip(node: Node) -> Pieces | None:
    bounds: list[float] = []
    for index, (name, other) in enumerate((("min", -_INFINITY), ("max", _INFINITY)), start=1):
        value = node.inputs[index] if len(node.inputs) > index else None
        array = ir.array(value)
        if value is not None and array is None:
            return None
        bounds.append(float(ir.attribute(node, name, other) if array is None else array))
    low, high = bounds
    if not low < high:
        return None
    pieces = (
        Piece(-_INFINITY, low, 0.0, low),
        Piece(low, high, 1.0, 0.0),
        Piece(high, _INFINITY, 0.0, high),
    )
    return tuple(p for p in pieces if p.low < p.high)


ACTIVATIONS: Mapping[str, Callable[[Node], Pieces | None]] = {
    "Relu": _relu,
    "LeakyRelu": _leaky,
    "Clip": _clip,
}
"""Operators that are piecewise linear, number by number."""


def activation(value: Value) -> Pieces | None:
    """What all readers of a value make of it, where that is one known activation."""
    readers: Sequence[Node] = [use.node for use in value.uses()]
    if not readers or value.is_graph_output():
        return None
    found = {
        maker(node) if (maker := ACTIVATIONS.get(ir.op(node))) is not None else None
        for node in readers
    }
    return found.pop() if len(found) == 1 else None
