"""Arithmetic of sizes that views need: cutting rows of sizes, and constants for Reshape."""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim.analyses.facts import Dim
from onnxslim.analyses.facts.dims import exact

Shape = tuple[Dim, ...]
Sizes = frozenset[Dim]
NONE: Sizes = frozenset()


def refine(left: Sequence[Dim], right: Sequence[Dim]) -> list[tuple[Dim, int, int]] | None:
    """Cut two rows of sizes with the same product at each other's ends.

    Returns pieces (size, index in left, index in right); None where an end does not divide what
    it falls into. No size may be 1.
    """
    pieces: list[tuple[Dim, int, int]] = []
    rest, i, j = list(left), 0, 0
    other = list(right)
    while i < len(rest) and j < len(other):
        mine, yours = rest[i], other[j]
        if mine == yours:
            pieces.append((mine, i, j))
            i, j = i + 1, j + 1
        elif (quotient := exact(yours, mine)) is not None:
            pieces.append((mine, i, j))
            i, other[j] = i + 1, quotient
        elif (quotient := exact(mine, yours)) is not None:
            pieces.append((yours, i, j))
            j, rest[i] = j + 1, quotient
        else:
            return None
    return pieces if i == len(rest) and j == len(other) else None


def constant_target(before: Shape, after: Shape, nonzero: Sizes) -> tuple[int, ...] | None:
    """The shape input of a Reshape as a constant: sizes, 0 where a size is copied, one -1.

    A -1 beside a copied size fails at run time where that size is 0: only beside those that are
    `nonzero` in every run that works, because of a Reshape that fails for them already.
    """
    target = [size if isinstance(size, int) else 0 for size in after]
    copied = [i for i, size in enumerate(after) if not isinstance(size, int)]
    open_axes = [i for i in copied if i >= len(before) or before[i] != after[i]]
    if len(open_axes) > 1:
        return None
    for axis in open_axes:
        if not all(_is_nonzero(after[i], nonzero) for i in copied if i != axis):
            return None
        target[axis] = -1
    return tuple(target)


def _is_nonzero(size: Dim, nonzero: Sizes) -> bool:
    """Whether a size divides one that is not 0."""
    return any(exact(other, size) is not None for other in nonzero)
