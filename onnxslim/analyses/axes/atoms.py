"""Atoms: what of an axis can be removed by itself, and what removing it drags along.

Every position of every axis carries an atom. Atoms that can only go together are tied. An axis
that a Reshape splits or merges is a product: the position (h, d) is removed when h or d is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxslim.ir import Array

Axis = Array | None
"""Atoms along one axis, int64 [size]; None for an axis whose size never changes by pruning."""


class Repeated(np.ndarray[Any, Any]):
    """Atoms of an axis that goes through them again and again, how often varies from run to run.

    So are the heads of all samples where batch and heads are merged.
    """


@dataclass(frozen=True)
class Product:
    """keep(flat[i, j, ...]) = keep(axes[0][i]) and keep(axes[1][j]) and ...; None always stays."""

    flat: Array  # atoms, int64 [n0, n1, ...]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Frozen:
    """Atoms that must stay, and the node and reason."""

    ids: Array
    node: str
    op: str
    reason: str


@dataclass
class Atoms:
    """The constraints that the rules of operators collect, to be solved together at the end."""

    count: int = 0
    left: list[Array] = field(default_factory=list[Array])
    right: list[Array] = field(default_factory=list[Array])
    products: list[Product] = field(default_factory=list[Product])
    frozen: list[Frozen] = field(default_factory=list[Frozen])

    def fresh(self, size: int) -> Array:
        """New atoms, tied to nothing yet."""
        made: Array = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return made

    def tie(self, one: Array, other: Array) -> None:
        """Atoms that go together, position by position. Raises ValueError for unequal lengths."""
        if one is other:
            return
        if one.shape != other.shape:
            raise ValueError(f"{one.size} positions tied to {other.size}")
        self.left.append(one.ravel())
        self.right.append(other.ravel())

    def freeze(self, ids: Array, node: str, op: str, reason: str) -> None:
        """Atoms that must stay."""
        self.frozen.append(Frozen(ids.ravel(), node, op, reason))

    def product(self, flat: Array, axes: Sequence[Axis]) -> None:
        """An axis that is the product of others; one that has but one real factor is tied to it."""
        kept = [(n, a) for n, a in zip(flat.shape, axes, strict=True) if n > 1]
        flat = flat.reshape([n for n, _ in kept])
        if len(kept) == 1 and kept[0][1] is not None:
            self.tie(flat, kept[0][1])
            return
        self.products.append(Product(flat, tuple(a for _, a in kept)))
