"""Reshape, Flatten, Squeeze and Unsqueeze: axes are split and merged as mixed radices.

Both shapes are cut into common factors from the last axis to the first; an axis of several factors
is their product. Sizes are polynomials in the dynamic ones, so that computed shapes are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes.atoms import Axis, Repeated
from onnxslim.analyses.axes.site import Rules, Site, Unfollowed
from onnxslim.analyses.facts import Dim
from onnxslim.analyses.facts.dims import exact

_VARYING = "it is merged with an axis of varying size"


@dataclass(frozen=True)
class Factor:
    """A part of one axis of the input and of one of the output."""

    size: Dim
    source: int
    target: int


def factors(source: tuple[Dim, ...], target: tuple[Dim, ...]) -> list[Factor]:
    """Common factors of two shapes of equal count, first to last.

    Cut from the back, and what remains from the front. Where sizes do not divide, or are not
    known, factors are missing: those of an axis do not multiply to its size.
    """
    last = range(len(source) - 1, -1, -1), range(len(target) - 1, -1, -1)
    back, i, j = _cut(source, target, *last)
    if i < 0 or j < 0:
        return back[::-1]
    front, _, _ = _cut(source, target, range(i + 1), range(j + 1))
    seen = {(f.source, f.target) for f in back}
    return [f for f in front if (f.source, f.target) not in seen] + back[::-1]


def _cut(
    source: tuple[Dim, ...], target: tuple[Dim, ...], ways: range, whither: range
) -> tuple[list[Factor], int, int]:
    """Factors in the order of the ranges, and the axes that it stopped at; -1 where it did not."""
    found: list[Factor] = []
    left: list[tuple[int, Dim]] = [(i, source[i]) for i in reversed(ways) if source[i] != 1]
    right: list[tuple[int, Dim]] = [(j, target[j]) for j in reversed(whither) if target[j] != 1]
    while left and right:
        (i, p), (j, q) = left.pop(), right.pop()
        if p == q:
            found.append(Factor(p, i, j))
        elif (rest := exact(p, q)) is not None:
            found.append(Factor(q, i, j))
            left.append((i, rest))
        elif (rest := exact(q, p)) is not None:
            found.append(Factor(p, i, j))
            right.append((j, rest))
        else:
            return found, i, j
    return found, -1, -1


def _reshape(site: Site) -> None:
    if site.op == "Reshape" and not site.has(1):
        raise Unfollowed("its shape is an attribute, as before opset 5")
    axes, source, target = site.axes(0), site.dims(0), site.out_dims()
    parts = factors(source, target)
    atoms = _split(site, axes, source, parts)
    made: list[Axis] = []
    for j, size in enumerate(target):
        own = [(part, atoms[at]) for at, part in enumerate(parts) if part.target == j]
        made.append(_merge(site, size, own) if size != 1 else None)
    repeated = [axis for axis in made if isinstance(axis, Repeated)]
    if len(repeated) > 1 or (repeated and _leaves_open(site)):
        for axis in repeated:
            site.freeze(axis, _VARYING)
    site.set(0, made)


def _leaves_open(site: Site) -> bool:
    """Whether a size of a computed shape may be -1, which is needed for an axis that repeats."""
    shape = site.input(1) if site.op == "Reshape" else None
    if shape is None or ir.constant(shape) is not None:
        return False
    maker = shape.producer()
    if maker is None or ir.op(maker) != "Concat":
        return True
    parts = [None if value is None else ir.array(value) for value in maker.inputs]
    return any(part is not None and (part == -1).any() for part in parts)


def _product(sizes: Sequence[Dim]) -> Dim:
    result: Dim = 1
    for size in sizes:
        result = result * size
    return result


def _leading(sizes: Sequence[Dim]) -> int:
    """How many of the first sizes vary."""
    return next((i for i, size in enumerate(sizes) if isinstance(size, int)), len(sizes))


def _split(
    site: Site, axes: tuple[Axis, ...], source: tuple[Dim, ...], parts: list[Factor]
) -> list[Axis]:
    """The atoms of every factor."""
    atoms: list[Axis] = [None] * len(parts)
    for i, ids in enumerate(axes):
        own = [at for at, part in enumerate(parts) if part.source == i]
        if ids is None:
            continue
        if isinstance(ids, Repeated) and len(own) > 1:
            own = own[_leading([parts[at].size for at in own]) :]
        sizes = [size for at in own if isinstance(size := parts[at].size, int)]
        if isinstance(ids, Repeated) and [parts[at].size for at in own] == [source[i]]:
            atoms[own[0]] = ids
        elif prod(sizes) != ids.size or len(sizes) < len(own):
            site.freeze(ids, "it is reshaped to sizes that do not divide, or are not known")
        elif len(own) == 1:
            atoms[own[0]] = ids.view(np.ndarray)
        else:
            made = [site.fresh(size) for size in sizes]
            site.product(ids, sizes, made)
            for at, part in zip(own, made, strict=True):
                atoms[at] = part
    return atoms


def _merge(site: Site, size: Dim, own: list[tuple[Factor, Axis]]) -> Axis:
    """The axis of this size that factors make up."""
    sizes = [part.size for part, _ in own]
    if len(own) == 1 and sizes[0] == size:
        return own[0][1]
    known = [n for n in sizes if isinstance(n, int)]
    if len(known) == len(own) and prod(known) == size:
        return site.merged(known, [ids for _, ids in own])
    first = _leading(sizes)
    inner = [ids for _, ids in own[first:]]
    alone = all(ids is None for _, ids in own[:first])
    if len(known) == len(own) - first > 0 and alone and _product(sizes) == size:
        made = site.merged(known, inner)
        return None if made is None else made.view(Repeated)
    for _, ids in own:
        site.freeze(ids, _VARYING)
    return None


RULES: Rules = dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape)
