"""Union-find over atoms, products included: which atoms go together, and what drags what along."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse as _sparse
from scipy.sparse.csgraph import connected_components

from onnxslim.analyses.axes.atoms import Atoms, Axis, Frozen, Product
from onnxslim.ir import Array

sparse: Any = _sparse  # its stubs leave half of the types open
Matrix: TypeAlias = Any
"""A csr_array of int64."""

_ROUNDS = 30


@dataclass(frozen=True)
class Solved:
    """`root[atom]` is the class of an atom. Products are in classes; so is `frozen`."""

    root: Array
    count: int
    products: tuple[Product, ...]
    frozen: Array  # bool [count]
    reasons: dict[int, Frozen]  # class -> the first reason why it stays


def solve(atoms: Atoms) -> Solved:
    """Tie what must be tied until nothing new follows. Cost: linear in atoms and ties, by rounds.

    Two products of the same positions into the same radices have the same factors.
    """
    for _ in range(_ROUNDS):
        root, count = _classes(atoms)
        if not _tie_factors(atoms, root):
            break
    else:
        for product in atoms.products:
            atoms.freeze(product.flat, "", "", "its factors found no fixed point")
        root, count = _classes(atoms)
    products = tuple(
        Product(root[p.flat], tuple(None if a is None else root[a] for a in p.axes))
        for p in atoms.products
    )
    frozen = np.zeros(count, np.bool_)
    reasons: dict[int, Frozen] = {}
    for fact in atoms.frozen:
        classes = np.unique(root[fact.ids])
        for found in classes[~frozen[classes]].tolist():
            reasons[found] = fact
        frozen[classes] = True
    return Solved(root, count, _distinct(products), frozen, reasons)


def _classes(atoms: Atoms) -> tuple[Array, int]:
    none: Array = np.zeros(0, np.int64)
    left = np.concatenate([none, *atoms.left])
    right = np.concatenate([none, *atoms.right])
    ones = np.ones(left.size, np.int8)
    graph = sparse.coo_array((ones, (left, right)), shape=(atoms.count, atoms.count))
    count, root = connected_components(graph, directed=False)
    return np.asarray(root, np.int64), int(count)


def _tie_factors(atoms: Atoms, root: Array) -> bool:
    """Tie the factors of equal products; whether that was new."""
    first: dict[tuple[object, ...], Product] = {}
    new = False
    for product in atoms.products:
        key = (product.flat.shape, root[product.flat].tobytes())
        other = first.setdefault(key, product)
        for one, two in zip(product.axes, other.axes, strict=True):
            new |= _tie(atoms, root, one, two)
    return new


def _tie(atoms: Atoms, root: Array, one: Axis, two: Axis) -> bool:
    if one is None and two is None:
        return False
    if one is None or two is None:
        for ids in (one, two):
            if ids is not None:
                atoms.freeze(ids, "", "Reshape", "it is tied to a factor that stays")
        return False
    if np.array_equal(root[one], root[two]):
        return False
    atoms.tie(one, two)
    return True


def _distinct(products: tuple[Product, ...]) -> tuple[Product, ...]:
    """Each product once."""
    found: dict[tuple[object, ...], Product] = {}
    for p in products:
        found[
            (p.flat.shape, p.flat.tobytes(), *(None if a is None else a.tobytes() for a in p.axes))
        ] = p
    return tuple(found.values())


class Closures:
    """What goes when an atom goes: all of its row of every product, and what follows."""

    def __init__(self, solved: Solved) -> None:
        self.solved = solved
        flat: Array = np.zeros(solved.count, np.int64)  # how many positions of products it is
        heads: list[Array] = []
        tails: list[Array] = []
        for p in solved.products:
            np.add.at(flat, p.flat.ravel(), 1)
            for j, axis in enumerate(p.axes):
                if axis is not None:
                    shape = [-1 if i == j else 1 for i in range(p.flat.ndim)]
                    heads.append(np.broadcast_to(axis.reshape(shape), p.flat.shape).ravel())
                    tails.append(p.flat.ravel())
        none: Array = np.zeros(0, np.int64)
        self.edges = _matrix(
            np.concatenate([none, *heads]), np.concatenate([none, *tails]), solved.count
        )
        self.is_flat = flat > 0
        self.irregular = flat > 1

    def units(self) -> Matrix:
        """One row per set of classes that can be removed together, [units, classes].

        Starts from every class that is no position of a product. A row that comes to a class that
        must stay is left out.
        """
        starts = np.flatnonzero(~self.is_flat & ~self.solved.frozen)
        rows = _matrix(np.arange(starts.size), starts, self.solved.count, starts.size)
        reach, frontier = rows, rows
        while frontier.nnz:  # as deep as products are nested
            frontier = _binary(frontier @ self.edges)
            grown = _binary(reach + frontier)
            frontier = _binary(grown - reach)
            reach = grown
        return self._settle(reach)

    def _settle(self, reach: Matrix) -> Matrix:
        """Without rows that must stay; rows of positions of two products are completed."""
        frozen = np.asarray(reach @ self.solved.frozen.astype(np.int64)) > 0
        odd = np.asarray(reach @ self.irregular.astype(np.int64)) > 0
        plain = reach[np.flatnonzero(~frozen & ~odd)]
        found: dict[bytes, Array] = {}
        for row in np.flatnonzero(~frozen & odd).tolist():
            removed = np.zeros(self.solved.count, np.bool_)
            removed[reach[[row]].indices] = True
            done = self._complete(removed)
            if done is not None:
                classes = np.flatnonzero(done)
                found[classes.tobytes()] = classes
        if not found:
            return plain
        sets = list(found.values())
        rows = np.repeat(np.arange(len(sets)), [s.size for s in sets])
        columns = np.concatenate(sets)
        more = _matrix(rows, columns, self.solved.count, len(sets))
        return _stack(plain, more)

    def _complete(self, removed: Array) -> Array | None:
        """The least that can be removed with these; None where something of it must stay.

        Only products with a class that was removed since they were last looked at are widened.
        """
        seen = np.zeros(self.solved.count, np.bool_)
        for _ in range(_ROUNDS):
            if (removed & self.solved.frozen).any():
                return None
            new = np.flatnonzero(removed & ~seen)
            if not new.size:
                return removed
            seen[new] = True
            for at in sorted({at for one in new.tolist() for at in self._lying.get(one, ())}):
                if not _cover(self.solved.products[at], removed):
                    return None
        return None

    @cached_property
    def _lying(self) -> dict[int, list[int]]:
        """The products that each class is a position or a factor of."""
        found: dict[int, list[int]] = defaultdict(list)
        for at, p in enumerate(self.solved.products):
            for ids in (p.flat.ravel(), *(axis for axis in p.axes if axis is not None)):
                for one in np.unique(ids).tolist():
                    found[one].append(at)
        return found


def _cover(p: Product, removed: Array) -> bool:
    """Widen the removed positions of a product to whole rows of its factors; False if none does."""
    gone = removed[p.flat]
    dropped = [None if a is None else removed[a] for a in p.axes]
    covered = np.zeros(p.flat.shape, np.bool_)
    for j, drop in enumerate(dropped):
        if drop is not None:
            covered |= _spread(drop, j, p.flat.ndim)
    rest = gone & ~covered
    if rest.any():
        choices: list[tuple[int, int, Array]] = []
        for j, axis in enumerate(p.axes):
            if axis is not None:
                others = tuple(i for i in range(p.flat.ndim) if i != j)
                rows: Array = np.asarray(rest.any(axis=others))
                choices.append((int(rows.sum()) * (p.flat.size // p.flat.shape[j]), j, rows))
        if not choices:
            return False
        _, j, rows = min(choices, key=lambda c: c[:2])
        axis = p.axes[j]
        assert axis is not None
        removed[axis[rows]] = True
        covered |= _spread(rows, j, p.flat.ndim)
    removed[p.flat[covered]] = True
    return True


def _spread(rows: Array, axis: int, rank: int) -> Array:
    return rows.reshape([-1 if i == axis else 1 for i in range(rank)])


def consistent(p: Product, removed: Array) -> bool:
    """Whether what stays of a product is all combinations of what stays of its factors."""
    keep = np.ones(p.flat.shape, np.bool_)
    for j, axis in enumerate(p.axes):
        if axis is not None:
            keep &= _spread(~removed[axis], j, p.flat.ndim)
    return bool(np.array_equal(keep, ~removed[p.flat]))


def _matrix(rows: Array, columns: Array, width: int, height: int | None = None) -> Matrix:
    ones = np.ones(rows.size, np.int64)
    return _binary(
        sparse.csr_array(
            (ones, (rows, columns)), shape=(width if height is None else height, width)
        )
    )


def _binary(matrix: Matrix) -> Matrix:
    matrix = sparse.csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.data = np.ones_like(matrix.data)
    return matrix


def _stack(one: Matrix, other: Matrix) -> Matrix:
    return sparse.csr_array(sparse.vstack([one, other]))
