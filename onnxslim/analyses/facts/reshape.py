"""Operators that keep the elements and change the axes: Reshape, Flatten, Squeeze, Transpose.

An element 0 of a Reshape's target copies the size of the input's axis. A symbolic element is 0 only
in runs with an empty tensor; there the size is still right if the input's axis is then empty too,
or if the element counts of input and target could not agree otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim, Expr
from onnxslim.analyses.facts.fact import (
    Contradiction,
    Fact,
    Rules,
    Shape,
    Site,
    axes_of,
    from_grid,
    grid,
    numbers,
)


def _reshape(site: Site) -> Fact:
    shape = site.shape()
    target = site.elements(1) if site.version >= 5 else _given(site.attr("shape"))
    if target is None:
        sizes = numbers(site.shape(1))
        rank = sizes[0] if sizes is not None and len(sizes) == 1 and sizes[0] < 32 else None
        return Fact(site.dtype(), None if rank is None else site.sizes(rank))
    made = reshaped(site, shape, target, bool(site.attr("allowzero", 0)))
    sizes = numbers(made)
    content = site.content(0)
    if sizes is None or content is None or dims.total(made) != len(content):
        content = None
    return Fact(site.dtype(), made, content)


def _given(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(v) for v in values)


def reshaped(site: Site, shape: Shape | None, target: Shape, allowzero: bool) -> Shape:
    """The shape that a Reshape gives. Raises Contradiction where it cannot."""
    if target.count(-1) > 1 or any(isinstance(t, int) and t < -1 for t in target):
        raise Contradiction
    if not allowzero:
        target = _with_copies(shape, target)
    found = [_size(i, element, shape, target, allowzero) for i, element in enumerate(target)]
    unknown = [i for i, size in enumerate(found) if size is None]
    if shape is None:
        return tuple(site.fresh(True) if size is None else size for size in found)
    count = dims.total(shape)
    if len(unknown) > 1 and -1 in target:  # what is divided by includes unknown sizes
        unknown = [target.index(-1)]
        found = [
            site.fresh(True) if size is None and i not in unknown else size
            for i, size in enumerate(found)
        ]
    rest = dims.total(size for size in found if size is not None)
    if len(unknown) == 1 and (target[unknown[0]] == -1 or dims.positive(rest)):
        found[unknown[0]] = _rest(count, rest)
    elif not unknown and _differ(count, rest):
        raise Contradiction
    return tuple(site.fresh(True) if size is None else size for size in found)


def _differ(one: Dim, two: Dim) -> bool:
    return isinstance(one, int) and isinstance(two, int) and one != two


def _rest(count: Dim, rest: Dim) -> Dim:
    """What -1 stands for. A valid run has elements on the other axes."""
    if rest == 0 or (isinstance(count, int) and isinstance(rest, int) and count % rest):
        raise Contradiction
    return dims.floor_div(count, rest)


def _size(
    index: int, element: Dim, shape: Shape | None, target: Shape, allowzero: bool
) -> Dim | None:
    """The size of an axis of the result; None for -1 and where it cannot be told."""
    if isinstance(element, int):
        unknown = element == -1 or (element == 0 and shape is None and not allowzero)
        return None if unknown else element
    if not dims.never_negative(element):
        return None
    if allowzero or dims.positive(element):
        return element
    if shape is None:
        return None
    if index < len(shape) and _empties(element, shape[index]):
        return element
    return element if _must_be_empty(index, element, shape, target) else None


def _with_copies(shape: Shape | None, target: Shape) -> Shape:
    """The target with the input's sizes for 0. Raises Contradiction where there is none."""
    if shape is None or 0 not in target:
        return target
    if any(size == 0 for size in target[len(shape) :]):
        raise Contradiction
    return tuple(shape[i] if size == 0 else size for i, size in enumerate(target))


def _empties(element: Expr, size: Dim) -> bool:
    """Whether the size is 0 wherever the element is: a product of which it has all factors."""
    if size == 0 or element == size:
        return True
    if isinstance(size, int) or len(element.terms) != 1:
        return False
    return all(element.atoms <= set(monomial) for monomial, _ in size.terms)


def _must_be_empty(index: int, element: Expr, shape: Shape, target: Shape) -> bool:
    """Whether the input is empty wherever the element is 0, and the result would not be."""
    others = [t for i, t in enumerate(target) if i != index]
    if any(isinstance(t, int) and t < 1 for t in others):
        return False
    if any(isinstance(t, Expr) and t.atoms & element.atoms for t in others):
        return False
    return _empties(element, dims.total(shape))


def _flatten(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(site.dtype(), site.sizes(2))
    axis = int(site.attr("axis", 1))
    if not -len(shape) <= axis <= len(shape):
        raise Contradiction
    axis = axis + len(shape) if axis < 0 else axis
    return Fact(site.dtype(), (dims.total(shape[:axis]), dims.total(shape[axis:])))


def _axes(site: Site) -> tuple[int, ...] | None:
    """The axes, an attribute before opset 13; None where they are not known."""
    if site.version < 13:
        return _given(site.attr("axes"))
    return site.ints(1)


def _squeeze(site: Site) -> Fact:
    shape, axes = site.shape(), _axes(site)
    if shape is None or (axes is None and site.has(1)):
        return Fact(site.dtype())
    if not axes:  # all axes of size 1, if that is known of each; runtimes take () for it too
        if numbers(shape) is None or (axes is not None and 1 in shape):
            return Fact(site.dtype())
        axes = tuple(i for i, size in enumerate(shape) if size == 1)
    gone = axes_of(axes, len(shape))
    if any(isinstance(shape[axis], int) and shape[axis] != 1 for axis in gone):
        raise Contradiction
    made = tuple(size for i, size in enumerate(shape) if i not in gone)
    return Fact(site.dtype(), made, site.content(0))


def _unsqueeze(site: Site) -> Fact:
    shape, axes = site.shape(), _axes(site)
    if shape is None or axes is None:
        return Fact(site.dtype())
    new = axes_of(axes, len(shape) + len(axes))
    old = iter(shape)
    made = tuple(1 if i in new else next(old) for i in range(len(shape) + len(axes)))
    return Fact(site.dtype(), made, site.content(0))


def _transpose(site: Site) -> Fact:
    shape = site.shape()
    given = site.attr("perm")
    if shape is None:
        return Fact(site.dtype(), None if given is None else site.sizes(len(given)))
    perm = [int(p) for p in given] if given is not None else list(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(shape))):
        raise Contradiction
    cells = grid(site.fact(0))
    if cells is not None:
        return from_grid(site.dtype(), cells.transpose(perm))
    return Fact(site.dtype(), tuple(shape[p] for p in perm))


def _depth_to_space(site: Site) -> Fact:
    shape, block = site.shape(), int(site.attr("blocksize", 1))
    if shape is None or len(shape) != 4 or block < 1:
        return Fact(site.dtype())
    n, c, h, w = shape
    if site.op == "DepthToSpace":
        return Fact(site.dtype(), (n, dims.floor_div(c, block * block), h * block, w * block))
    rows, columns = dims.floor_div(h, block), dims.floor_div(w, block)
    return Fact(site.dtype(), (n, c * (block * block), rows, columns))


RULES: Rules = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
}
