"""Writes a random model in ONNX's text form, knowing the shape of every value in several worlds.

A world gives every symbolic dimension a number. The size of an axis is a tuple with its number in
each world, so that a model is valid in all of them although its declaration is dynamic.

Every value also has a bound of its magnitude and one of its rounding error, so that a test can
tell how far the outputs of two models that differ only by rounding may be apart: running error
analysis (Higham, Accuracy and Stability of Numerical Algorithms, 3.3). Both are infinite after an
operator that has no useful Lipschitz constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

WORLDS: tuple[dict[str, int], ...] = ({"N": 1, "S": 4}, {"N": 2, "S": 3}, {"N": 3, "S": 5})

UNIT = 2.0**-23  # a float32 and the next one differ by that much, relatively

Size = tuple[int, ...]  # of one axis, in each world
Sizes = tuple[Size, ...]

Plain = int | float | str
AttributeValue = Plain | Sequence[int] | Sequence[float]


class Unfit(Exception):
    """The graph so far has nothing that the recipe needs."""


@dataclass(frozen=True)
class Val:
    """A value of the graph."""

    name: str
    dtype: str
    shape: Sizes
    bound: float = math.inf  # of the magnitude of its elements
    error: float = math.inf  # by which rounding may change them
    content: tuple[tuple[int, ...], ...] | None = None  # elements of an int64 vector, by world

    @property
    def rank(self) -> int:
        return len(self.shape)


def fixed(*sizes: int) -> Sizes:
    """Sizes that are the same in every world."""
    return tuple((size,) * len(WORLDS) for size in sizes)


def is_fixed(size: Size) -> bool:
    return len(set(size)) == 1


def product(sizes: Sizes) -> Size:
    return tuple(math.prod(size[w] for size in sizes) for w in range(len(WORLDS)))


def by_world(shape: Callable[[int], Sequence[int] | None]) -> Sizes:
    """Sizes from a function that gives the shape in one world; Unfit where that gives None."""
    shapes: list[Sequence[int]] = []
    for world in range(len(WORLDS)):
        found = shape(world)
        if found is None or any(size < 0 for size in found):
            raise Unfit
        shapes.append(found)
    if len({len(found) for found in shapes}) != 1:
        raise Unfit
    return tuple(zip(*shapes, strict=True))


def broadcast(*shapes: Sizes) -> Sizes:
    def one(world: int) -> list[int] | None:
        rank = max(len(shape) for shape in shapes)
        result = [1] * rank
        for shape in shapes:
            for axis, size in enumerate(reversed(shape)):
                if size[world] != 1 and result[-1 - axis] not in (1, size[world]):
                    return None
                result[-1 - axis] = max(result[-1 - axis], size[world])
        return result

    return by_world(one)


def dims_text(shape: Sizes) -> str:
    """As a declaration: numbers, names of symbols, and `?`."""
    names = {tuple(world[name] for world in WORLDS): name for name in WORLDS[0]}
    return ", ".join(str(s[0]) if is_fixed(s) else names.get(s, "?") for s in shape)


def declare(value: Val) -> str:
    dims = f"[{dims_text(value.shape)}]" if value.shape else ""
    return f"{value.dtype}{dims} {value.name}"


def attribute_text(value: AttributeValue) -> str:
    if isinstance(value, str):
        return value if value.startswith("@") or "{" in value else f'"{value}"'
    if isinstance(value, int | float):
        return repr(value)
    return f"[{', '.join(repr(v) for v in value)}]"


class Names:
    """New names, for a graph with all that it holds."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"v{self._count}"


class Builder:
    """A graph that grows by one node at a time."""

    def __init__(self, rng: Random, opset: int, parent: Builder | None = None) -> None:
        self.rng = rng
        self.opset = opset
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.names: Names = Names() if parent is None else parent.names
        self.functions: dict[str, str] = {} if parent is None else parent.functions
        self.values: list[Val] = [] if parent is None else list(parent.values)
        self.own: list[Val] = []  # what nodes of this very graph compute
        self.lines: list[str] = []
        self.initializers: list[str] = []

    def child(self) -> Builder:
        """A graph inside a node, which sees the values so far."""
        return Builder(self.rng, self.opset, self)

    def chance(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == one_in - 1

    def pick(self, fits: Callable[[Val], bool]) -> Val:
        """A value that fits, more likely a late one."""
        fitting = [value for value in self.values if fits(value)]
        if not fitting:
            raise Unfit
        return self.rng.choice(self.rng.choice([fitting[-1:], fitting[-3:], fitting]))

    def floats(self, rank: int | None = None) -> Val:
        """A float tensor, of the rank if one is given."""
        return self.pick(lambda v: v.dtype == "float" and (rank is None or v.rank == rank))

    def since(self, opset: int) -> None:
        if self.opset < opset:
            raise Unfit

    def node(
        self,
        op: str,
        inputs: Sequence[Val | None],
        shape: Sizes,
        like: Val | None = None,
        *,
        dtype: str | None = None,
        bound: float = math.inf,
        error: float = math.inf,
        content: tuple[tuple[int, ...], ...] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        **more: AttributeValue,
    ) -> Val:
        """Add a node with one output; `like` gives what is not said of it."""
        if like is not None:
            dtype = dtype or like.dtype
            bound, error = like.bound, like.error
        result = Val(self.names.new(), dtype or "float", shape, *sane(bound, error), content)
        self.line([result], op, inputs, {**(attributes or {}), **more})
        return result

    def line(
        self,
        outputs: Sequence[Val],
        op: str,
        inputs: Sequence[Val | None],
        attributes: dict[str, AttributeValue],
    ) -> None:
        if any(math.prod(s[w] for s in v.shape) > 5000 for v in outputs for w in (0, 1, 2)):
            raise Unfit
        names = ", ".join("" if value is None else value.name for value in inputs)
        text = ", ".join(f"{key} = {attribute_text(v)}" for key, v in attributes.items())
        results = ", ".join(value.name for value in outputs)
        self.lines.append(f"{results} = {op}{f' <{text}>' if text else ''} ({names})")
        self.values += outputs
        self.own += outputs

    def constant(self, dtype: str, dims: Sequence[int], elements: Sequence[Plain]) -> Val:
        """An initializer, or now and then a Constant."""
        name = self.names.new()
        kind = f"{dtype}{list(dims) if dims else ''}"
        data = "{" + ", ".join(str(e) for e in elements) + "}"
        if self.chance(4) and 0 not in dims:
            self.lines.append(f"{name} = Constant <value = {kind} {data}> ()")
        else:
            self.initializers.append(f"{kind} {name} = {data}")
        numbers = [abs(float(e)) for e in elements]
        content = None
        if dtype == "int64" and len(dims) <= 1:
            content = (tuple(int(e) for e in elements),) * len(WORLDS)
        return Val(name, dtype, fixed(*dims), max(numbers, default=0.0), 0.0, content)

    def ints(self, *elements: int) -> Val:
        return self.constant("int64", [len(elements)], elements)

    def scalar(self, number: float, dims: Sequence[int] = ()) -> Val:
        return self.constant("float", dims, [float(number)])

    def weights(self, *dims: int, positive: bool = False) -> Val:
        """Numbers in [-2, 2]: quarters, so that much of the arithmetic is exact, or tenths."""
        step = self.rng.choice([4, 4, 10])
        source = Random(self.rng.randrange(1 << 12))
        low = 1 if positive else -2 * step
        elements = [source.randint(low, 2 * step) / step for _ in range(math.prod(dims))]
        return self.constant("float", dims, elements)

    def text(self) -> str:
        """What stands between the braces of the graph."""
        return "\n  ".join(self.lines)

    def held(self) -> str:
        """The initializers, as they stand before the braces."""
        return f"<{', '.join(self.initializers)}>" if self.initializers else ""


def sane(bound: float, error: float) -> tuple[float, float]:
    """Both, or infinities where they are too large to mean anything."""
    useful = bound < 1e6 and error < 1e6
    return (bound, error) if useful else (math.inf, math.inf)


def renamed(value: Val, name: str) -> Val:
    return replace(value, name=name)
