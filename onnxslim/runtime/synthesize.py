"""Inputs made up for any model: good enough to run it and to compare two versions of it.

Nothing about accuracy follows from them. Sizes that a model leaves free are found by running it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.roles import DimKind, Input, Role, dim_kind, read_inputs
from onnxslim.runtime.samples import Array, Feed, Samples
from onnxslim.runtime.session import Session, open_session

IMAGE_SIZES = (224, 32, 48, 64, 640, 28, 320, 256, 512, 96, 128, 299, 16, 8)
LENGTHS = (16, 32, 128, 1, 512, 4096, 16000)
RANKS = (2, 4, 3, 1, 0)  # for an input whose rank is not known
_MOST_TRIES = 60

Fill = Literal["random", "ones", "zeros", "mild"]
"""How values are filled: by their role, or all integers alike, or (`mild`) integers counting up
and reals between 0.5 and 1, for inputs that are really arguments: axes, ratios, scales."""


@dataclass(frozen=True)
class Sizes:
    """One way to fill in what a model leaves free."""

    image: int = IMAGE_SIZES[0]
    length: int = LENGTHS[0]
    rank: int = RANKS[0]
    fill: Fill = "random"

    def of(self, kind: DimKind) -> int:
        """The size of a free dimension of some kind."""
        sizes: dict[DimKind, int] = {"batch": 1, "past": 0, "channels": 3}
        return sizes.get(kind, self.image if kind == "image" else self.length)


class Synthetic(Samples):
    """Seeded feeds that are made when they are read: the same at each reading."""

    def __init__(self, inputs: tuple[Input, ...], sizes: Sizes, count: int, seed: int) -> None:
        self._inputs = inputs
        self._shapes = dimensions(inputs, sizes)
        self._sizes = sizes
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Feed:
        if not 0 <= index < self._count:
            raise IndexError(index)
        rng = np.random.default_rng([self._seed, index])
        return {i.info.name: self._value(i, rng) for i in self._inputs}

    def _value(self, given: Input, rng: np.random.Generator) -> Any:
        shape = self._shapes[given.info.name]
        if given.info.sequence:
            return [_filled(given, shape, self._sizes, rng) for _ in range(2)]
        return _filled(given, shape, self._sizes, rng)


def synthesize(model: ir.Model, count: int = 8, seed: int = 0, threads: int = 1) -> Samples:
    """Feeds for any model that ONNX Runtime opens, of sizes that it has run.

    A free dimension gets one size per symbol: batch 1, lengths and image sizes by trial.
    Identifiers stay within the table that they index, masks are ones, floats are normal(0, 1).

    Raises:
        RuntimeUnavailable: ONNX Runtime lacks an operator, or runs none of the sizes tried.
    """
    inputs = read_inputs(model)
    session = open_session(model, threads=threads, optimize="basic")
    tried: list[Sizes] = []
    last = ""
    for sizes in itertools.islice(_candidates(inputs), _MOST_TRIES):
        samples = Synthetic(inputs, sizes, count, seed)
        last = _failure(session, samples[0]) if count else ""
        if not last:
            return samples
        tried.append(sizes)
    raise RuntimeUnavailable(
        f"no made-up input runs: tried image sizes {_distinct(s.image for s in tried)}, lengths "
        f"{_distinct(s.length for s in tried)}; give real data with --calib. The last try: {last}"
    )


def _failure(session: Session, feed: Feed) -> str:
    try:
        session.run(feed)
    except RuntimeUnavailable as error:
        return str(error)
    return ""


def _candidates(inputs: tuple[Input, ...]) -> Iterator[Sizes]:
    """Sizes to try, the likely ones first; only what the inputs leave free varies."""
    free = {kind for i in inputs for kind in _free_kinds(i)}
    unranked = any(i.info.shape is None for i in inputs)
    guessed = any(i.info.dtype is not None and i.info.dtype.kind in "iu" for i in inputs)
    whole: tuple[Fill, ...] = ("ones", "zeros") if guessed else ()
    fills: tuple[Fill, ...] = ("random", *whole, "mild")
    ranks = RANKS if unranked else RANKS[:1]
    lengths = LENGTHS if unranked or free & {"sequence"} else LENGTHS[:1]
    images = IMAGE_SIZES if unranked or free & {"image"} else IMAGE_SIZES[:1]
    grid = [Sizes(i, n, r) for n, i, r in itertools.product(lengths, images, ranks)]
    grid.sort(key=lambda s: images.index(s.image) + lengths.index(s.length) + ranks.index(s.rank))
    for sizes in grid:
        yield from (replace(sizes, fill=fill) for fill in fills)


def _free_kinds(given: Input) -> Iterator[DimKind]:
    for axis, dim in enumerate(given.info.shape or ()):
        if not isinstance(dim, int):
            yield dim_kind(given.info, axis)


def dimensions(inputs: tuple[Input, ...], sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The shape of each input: one size per symbol; sums of symbols are computed."""
    table: dict[str, int] = {}
    for given in inputs:
        for axis, dim in enumerate(given.info.shape or ()):
            if isinstance(dim, str) and "+" not in dim:
                table.setdefault(dim, sizes.of(dim_kind(given.info, axis)))
    return {given.info.name: _shape(given, sizes, table) for given in inputs}


def _shape(given: Input, sizes: Sizes, table: Mapping[str, int]) -> tuple[int, ...]:
    info = given.info
    if info.shape is None:
        info = replace(info, shape=(None,) * sizes.rank)
    dims = info.shape or ()
    return tuple(
        dim if isinstance(dim, int) else _sum(dim, table, sizes.of(dim_kind(info, axis)))
        for axis, dim in enumerate(dims)
    )


def _sum(dim: str | None, table: Mapping[str, int], default: int) -> int:
    """`past + sequence` from the sizes of its terms."""
    if dim is None:
        return default
    terms = [term.strip() for term in dim.split("+")]
    values = [int(t) if t.isdecimal() else table.get(t) for t in terms]
    return default if None in values else sum(v for v in values if v is not None)


Shape = tuple[int, ...]
Maker = Callable[[Input, Shape, Sizes, np.random.Generator], Array]


def _ids(given: Input, shape: Shape, sizes: Sizes, rng: np.random.Generator) -> Array:
    return rng.integers(0, max(given.bound or 2, 1), shape)


def _positions(given: Input, shape: Shape, sizes: Sizes, rng: np.random.Generator) -> Array:
    last = shape[-1] if shape else 1
    return np.broadcast_to(np.arange(last) % max(given.bound or last, 1), shape)


def _bytes(given: Input, shape: Shape, sizes: Sizes, rng: np.random.Generator) -> Array:
    limits = np.iinfo(given.info.dtype or np.uint8)
    return rng.integers(limits.min, limits.max + 1, shape)


_MAKERS: MappingProxyType[Role, Maker] = MappingProxyType(
    {
        "ids": _ids,
        "mask": lambda given, shape, sizes, rng: np.ones(shape),
        "types": lambda given, shape, sizes, rng: np.zeros(shape),
        "positions": _positions,
        "lengths": lambda given, shape, sizes, rng: np.full(shape, sizes.length),
        "bytes": _bytes,
        "flag": lambda given, shape, sizes, rng: np.zeros(shape),
        "count": lambda given, shape, sizes, rng: np.ones(shape),
        "text": lambda given, shape, sizes, rng: np.full(shape, "a", dtype=object),
        "real": lambda given, shape, sizes, rng: rng.standard_normal(shape),
    }
)


def _filled(given: Input, shape: Shape, sizes: Sizes, rng: np.random.Generator) -> Array:
    dtype = given.info.dtype or np.dtype(np.float32)
    if sizes.fill == "mild" and dtype.kind in "iuf":
        count = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
        return (rng.uniform(0.5, 1, shape) if dtype.kind == "f" else count).astype(dtype)
    if dtype.kind in "iu" and sizes.fill != "random":
        return np.full(shape, sizes.fill == "ones", dtype)
    return np.asarray(_MAKERS[given.role](given, shape, sizes, rng)).astype(dtype)


def _distinct(values: Iterable[int]) -> str:
    return ", ".join(str(v) for v in dict.fromkeys(values))
