"""A random model as text, what to feed it in each world, and how far rounding may move outputs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.random_graphs.builder import (
    UNIT,
    WORLDS,
    Builder,
    Size,
    Sizes,
    Val,
    declare,
    dims_text,
    fixed,
)
from tests.random_graphs.recipes import step

OPSETS = (11, 12, 13, 14, 15, 16, *(17,) * 3, 18, 19, *(20,) * 2, 21, 22, *(23,) * 3)


@dataclass(frozen=True)
class Case:
    """A model."""

    text: str
    inputs: tuple[Val, ...]
    outputs: tuple[Val, ...]

    def feed(self, world: dict[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        """Inputs, the same for the same world: quarters in [-2, 2], and a condition."""
        rng = np.random.default_rng(world["N"])
        result: dict[str, np.ndarray[Any, Any]] = {}
        for value in self.inputs:
            names = [name.strip() for name in dims_text(value.shape).split(",") if name]
            dims = [int(d) if d.isdigit() else world[d] for d in names]
            if value.dtype == "bool":
                result[value.name] = np.array(world["N"] % 2 == 0)
            else:
                result[value.name] = (rng.integers(-8, 9, dims) / 4).astype(np.float32)
        return result

    def __str__(self) -> str:
        return self.text


def build(rng: Random, most: int = 12) -> Case:
    """A model of as many steps at most, out of a source of randomness."""
    opset = rng.choice(OPSETS)
    b = Builder(rng, opset)
    inputs = tuple(_inputs(rng))
    b.values += inputs
    for _ in range(rng.randrange(2, most)):
        step(b)
    if not b.own:
        x = inputs[1]
        b.node("Relu", [x], x.shape, bound=x.bound, error=x.error + UNIT)
    outputs = _outputs(rng, b)
    return Case(_text(b, opset, inputs, outputs), inputs, outputs)


def _inputs(rng: Random) -> list[Val]:
    n: Size = tuple(world["N"] for world in WORLDS)
    s: Size = tuple(world["S"] for world in WORLDS)
    shapes: list[Sizes] = [
        (n, *fixed(2, 4, 6)),
        (n, s, *fixed(4)),
        (n, *fixed(4)),
        fixed(2, 3),
        (n, *fixed(3), s, s),
    ]
    chosen = rng.sample(shapes, rng.choice([1, 2, 2]))
    values = [Val(f"x{i}", "float", shape, 2.0, 0.0) for i, shape in enumerate(chosen)]
    return [Val("c", "bool", (), 1, 0.0), *values]


def _outputs(rng: Random, b: Builder) -> tuple[Val, ...]:
    """The last value, most that nothing reads, and some in the middle."""
    seen = Counter(re.findall(r"\bv\d+\b", b.text()))
    ends = [v for v in b.own if seen[v.name] == 1]
    chosen = [b.own[-1], *rng.sample(ends, min(len(ends), 4))]
    chosen += rng.sample(b.own, min(len(b.own), rng.randrange(3)))
    return tuple({v.name: v for v in chosen}.values())


def _text(b: Builder, opset: int, inputs: tuple[Val, ...], outputs: tuple[Val, ...]) -> str:
    local = ', "local" : 1' if b.functions else ""
    ir_version = 8 if opset < 20 else 10
    functions = "".join(
        f'\n<domain: "local", opset_import: ["" : {opset}, "local" : 1]>\n{text}'
        for text in b.functions.values()
    )
    return (
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}{local}]>\n'
        f"g ({', '.join(map(declare, inputs))}) => ({', '.join(map(declare, outputs))})\n"
        f"{b.held()} {{\n  {b.text()}\n}}{functions}"
    )


def cases() -> st.SearchStrategy[Case]:
    """Models for hypothesis, which makes them smaller where a property fails."""
    return st.randoms(use_true_random=False).map(build)
