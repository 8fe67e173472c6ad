"""Algebra of sizes: equal expressions are equal numbers, and equal numbers are found to be so."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import (
    Dim,
    broadcast,
    evaluate,
    exact,
    floor_div,
    floor_mod,
    maximum,
    minimum,
    named,
    never_negative,
    opaque,
    positive,
    render,
    trunc_div,
)

N, C, S = named("N"), named("C"), named("S")


def test_polynomials_are_equal_however_they_were_made() -> None:
    assert (N + 1) * (N - 1) == N * N - 1
    assert hash((N + C) * 2) == hash(2 * C + 2 * N)
    assert N - N == 0
    assert (N + 2) - N == 2
    assert N != C
    assert 3 - N == -(N - 3)


def test_they_are_written_as_one_reads_them() -> None:
    assert render(N * N * 2 - C + 3) == "2*N*N - C + 3"
    assert render(floor_div(N + 1, 2)) == "floordiv(N + 1, 2)"
    assert render(named("a size")) == "'a size'"
    assert render(opaque(3)) != render(opaque(3, size=False))


@pytest.mark.parametrize(
    ("dividend", "divisor", "quotient"),
    [
        (N * 12, 4, N * 3),
        (N * 12, N, 12),
        (N * C * 6, C * 2, N * 3),
        (N * N - 1, N + 1, N - 1),
        (N * 3, 2, None),
        (N, C, None),
        (N + 1, N, None),
        (12, 0, None),
    ],
)
def test_exact_division_gives_the_quotient_or_nothing(
    dividend: Dim, divisor: Dim, quotient: Dim | None
) -> None:
    assert exact(dividend, divisor) == quotient


def test_floor_division_takes_out_what_divides() -> None:
    assert floor_div(2 * N + 3, 2) == N + 1
    assert floor_div(5 * N, 2) == 2 * N + floor_div(N, 2)
    assert floor_div(floor_div(N, 2), 3) == floor_div(N, 6)
    assert floor_div(2 * N, 4) == floor_div(N, 2)
    assert floor_mod(2 * N + 3, 2) == 1
    assert floor_mod(N * C, C) == 0


def test_signs_are_known_of_sizes_only() -> None:
    assert positive(N + 1)
    assert never_negative(N * C)
    assert not positive(N)
    assert not never_negative(N - 1)
    assert not never_negative(opaque(1, size=False))


def test_extremes_are_taken_where_the_order_is_certain() -> None:
    assert maximum(N + 1, N) == N + 1
    assert minimum(N, N + C) == N
    assert maximum(N, 0) == N
    assert maximum(N, C) == maximum(C, N)


def test_broadcasting_keeps_apart_what_may_differ() -> None:
    assert broadcast([1, N]) == N
    assert broadcast([N, N, 1]) == N
    assert broadcast([N, 4]) == 4
    assert broadcast([N, 0]) == 0
    assert broadcast([3, 4]) is None
    assert broadcast([N, C]) == broadcast([C, N])
    assert broadcast([N, C]) not in (N, C)
    assert broadcast([broadcast([N, C]) or 0, N]) == broadcast([N, C])
    assert broadcast([minimum(N, 512), N]) == N  # both are 1, or they are equal


def test_expressions_stay_small() -> None:
    product: Dim = 1
    for index in range(40):
        product = product * (named(f"a{index}") + named(f"b{index}"))
    deep: Dim = N
    for _ in range(200):
        deep = floor_div(deep * C + 1, deep + 2)
    assert len(render(product)) < 5000
    assert len(render(deep)) < 5000


_OPERATIONS: tuple[tuple[Callable[[Dim, Dim], Dim], Callable[[int, int], int]], ...] = (
    (dims.add, lambda a, b: a + b),
    (dims.subtract, lambda a, b: a - b),
    (dims.multiply, lambda a, b: a * b),
    (lambda a, b: floor_div(a, b) if b != 0 else 0, lambda a, b: a // b),
    (lambda a, b: floor_mod(a, b) if b != 0 else 0, lambda a, b: a % b),
    (lambda a, b: trunc_div(a, b) if b != 0 else 0, lambda a, b: int(a / b)),
    (maximum, max),
    (minimum, min),
)


def test_random_expressions_have_the_value_of_their_operations() -> None:
    rng = Random(7)
    sizes = {"N": 5, "C": 12, "S": 7}
    compared = 0
    for _ in range(3000):
        dim: Dim = rng.choice([N, C, S])
        number = sizes[render(dim)]
        for _ in range(rng.randrange(1, 7)):
            symbolic, plain = rng.choice(_OPERATIONS)
            other: Dim = rng.choice([N, C, S, rng.randrange(-4, 9), N * 2 + 1])
            operand = evaluate(other, sizes)
            assert operand is not None
            if operand == 0:
                continue
            dim, number = symbolic(dim, other), plain(number, operand)
            if abs(number) > 2**40:
                break
            assert evaluate(dim, sizes) == number, render(dim)
            compared += 1
    assert compared > 5000
