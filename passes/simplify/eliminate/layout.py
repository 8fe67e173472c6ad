"""What a chain of Reshape and Transpose does to the elements of a tensor, and its shortest form.

The axes of the source are split into atoms, so that each axis of the result is a run of atoms in
some order: [N, 197, 768] -> Reshape -> Transpose -> [N, 12, 197, 64] has the atoms N, 197, 12, 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from onnxslim.analyses.facts import Dim
from onnxslim.analyses.facts.dims import total
from onnxslim.passes.simplify.eliminate.sizes import Shape, refine

Axes = tuple[tuple[int, ...], ...]
"""For each axis the numbers of its atoms, outer first; none for an axis of size one."""


@dataclass(frozen=True)
class Layout:
    """The elements of a tensor in another order and shape."""

    atoms: tuple[Dim, ...]  # sizes, in the order in which they lie in the source; none is 1
    source: Axes
    result: Axes

    @property
    def before(self) -> Shape:
        """The shape of the source."""
        return self._shape(self.source)

    @property
    def after(self) -> Shape:
        """The shape of the result."""
        return self._shape(self.result)

    @property
    def order(self) -> list[int]:
        """The atoms as they lie in the result."""
        return list(chain.from_iterable(self.result))

    @property
    def is_flat(self) -> bool:
        """Whether the elements keep their order: a Reshape does it."""
        return self.order == sorted(self.order)

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.source == self.result

    def _shape(self, axes: Axes) -> Shape:
        return tuple(total(self.atoms[atom] for atom in axis) for axis in axes)

    def inverse(self) -> Layout:
        """From the result back to the source."""
        order = self.order
        number = {atom: new for new, atom in enumerate(order)}
        return Layout(
            tuple(self.atoms[atom] for atom in order),
            _renumbered(self.result, number),
            _renumbered(self.source, number),
        )

    def then(self, other: Layout) -> Layout | None:
        """This one and another behind it; None where the other cuts across the atoms."""
        order = self.order
        pieces = refine([self.atoms[atom] for atom in order], other.atoms)
        if pieces is None:
            return None
        mine: dict[int, list[int]] = {atom: [] for atom in order}
        yours: list[list[int]] = [[] for _ in other.atoms]
        for index, (_, i, j) in enumerate(pieces):
            mine[order[i]].append(index)
            yours[j].append(index)
        rows = list(chain.from_iterable(mine[atom] for atom in sorted(mine)))
        number = {piece: new for new, piece in enumerate(rows)}
        return Layout(
            tuple(pieces[piece][0] for piece in rows),
            tuple(tuple(number[p] for a in axis for p in mine[a]) for axis in self.source),
            tuple(tuple(number[p] for a in axis for p in yours[a]) for axis in other.result),
        )


def _renumbered(axes: Axes, number: dict[int, int]) -> Axes:
    return tuple(tuple(number[atom] for atom in axis) for axis in axes)


def unchanged(shape: Shape) -> Layout:
    """The layout that changes nothing."""
    count = iter(range(len(shape)))
    axes = tuple(() if size == 1 else (next(count),) for size in shape)
    return Layout(tuple(size for size in shape if size != 1), axes, axes)


def reshaped(before: Shape, after: Shape) -> Layout | None:
    """What a Reshape does; None for empty tensors and where sizes are not seen to divide."""
    if 0 in before or 0 in after:
        return None
    first, second = unchanged(before), unchanged(after)
    return first.then(second)


def transposed(shape: Shape, perm: Sequence[int]) -> Layout | None:
    """What a Transpose does."""
    if 0 in shape or sorted(perm) != list(range(len(shape))):
        return None
    same = unchanged(shape)
    return Layout(same.atoms, same.source, tuple(same.source[axis] for axis in perm))


def with_last(layout: Layout, size: Dim) -> Layout | None:
    """The same with another last axis, which must be one that the layout leaves alone."""
    if not keeps_last(layout):
        return None
    own = layout.source[-1]
    head = layout.atoms[: len(layout.atoms) - len(own)]
    last: tuple[int, ...] = () if size == 1 else (len(head),)
    atoms = head if size == 1 else (*head, size)
    return Layout(atoms, (*layout.source[:-1], last), (*layout.result[:-1], last))


def keeps_last(layout: Layout) -> bool:
    """Whether the last axis of the source is the last axis of the result."""
    if not layout.source or not layout.result:
        return False
    return layout.source[-1] == layout.result[-1] and layout.source[-1] == tuple(
        range(len(layout.atoms) - len(layout.source[-1]), len(layout.atoms))
    )


def with_axis(layout: Layout, axis: int, size: Dim) -> Layout | None:
    """The same for a tensor with one axis more, which the result has first."""
    if size in (0, 1) or not 0 <= axis <= len(layout.source):
        return None
    at = sum(len(group) for group in layout.source[:axis])
    number = {atom: atom + (atom >= at) for atom in range(len(layout.atoms))}
    source, result = _renumbered(layout.source, number), _renumbered(layout.result, number)
    return Layout(
        (*layout.atoms[:at], size, *layout.atoms[at:]),
        (*source[:axis], (at,), *source[axis:]),
        ((at,), *result),
    )


def runs(layout: Layout) -> Iterator[tuple[int, ...]]:
    """The longest runs of atoms that stay together, as they lie in the result."""
    run: list[int] = []
    for atom in layout.order:
        if run and atom != run[-1] + 1:
            yield tuple(run)
            run = []
        run.append(atom)
    if run:
        yield tuple(run)
