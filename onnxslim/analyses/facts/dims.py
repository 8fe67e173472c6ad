"""Arithmetic of sizes: what is no polynomial, like floor division, becomes an atom of its own.

Operands are brought into one form first, so that equal results are equal expressions more often:
(2 N + 3) // 2 is N + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from math import gcd

from onnxslim.analyses.facts.expr import (
    MOST_TERMS,
    Atom,
    Dim,
    Expr,
    Monomial,
    compound,
    named,
    never_negative,
    opaque,
    polynomial,
    positive,
    render,
    terms_of,
    total,
)

__all__ = [
    "Dim",
    "Expr",
    "add",
    "broadcast",
    "ceil_div",
    "evaluate",
    "exact",
    "floor_div",
    "floor_mod",
    "maximum",
    "minimum",
    "multiply",
    "named",
    "never_negative",
    "opaque",
    "positive",
    "render",
    "subtract",
    "total",
    "trunc_div",
]


def add(one: Dim, two: Dim) -> Dim:
    """The sum."""
    return one + two


def subtract(one: Dim, two: Dim) -> Dim:
    """The difference."""
    return one - two


def multiply(one: Dim, two: Dim) -> Dim:
    """The product."""
    return one * two


def exact(dividend: Dim, divisor: Dim) -> Dim | None:
    """The quotient of polynomials where it is one, with nothing left; None otherwise.

    What holds is dividend = quotient * divisor, also where the divisor is 0 in a run.
    """
    if isinstance(divisor, int):
        if divisor == 0:
            return None
        factors = [(monomial, divmod(factor, divisor)) for monomial, factor in terms_of(dividend)]
        if any(rest for _, (_, rest) in factors):
            return None
        return polynomial({monomial: q for monomial, (q, _) in factors}, "+", (dividend,))
    if dividend == divisor:
        return 1
    return _long_division(dividend, divisor)


def _long_division(dividend: Dim, divisor: Expr) -> Dim | None:
    lead, lead_factor = divisor.terms[0]
    quotient: Dim = 0
    for _ in range(MOST_TERMS):
        if dividend == 0:
            return quotient
        monomial, factor = terms_of(dividend)[0]
        left = _without(monomial, lead)
        if left is None or factor % lead_factor:
            return None
        step = polynomial({left: factor // lead_factor}, "+", ())
        quotient = quotient + step
        dividend = dividend - step * divisor
    return None


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in part:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def floor_div(dividend: Dim, divisor: Dim) -> Dim:
    """The quotient rounded down, for a divisor that is not 0 in any valid run."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor
    if (quotient := exact(dividend, divisor)) is not None:
        return quotient
    size = never_negative(dividend) and never_negative(divisor)
    if not isinstance(divisor, int) or divisor < 0 or isinstance(dividend, int):
        return compound("floordiv", (dividend, divisor), size)
    whole = polynomial({m: f // divisor for m, f in dividend.terms}, "+", (dividend, divisor))
    return whole + _small_div(dividend - whole * divisor, divisor)


def _small_div(rest: Dim, divisor: int) -> Dim:
    """Floor division where all factors are below the divisor."""
    if isinstance(rest, int):
        return rest // divisor
    common = reduce(gcd, (factor for _, factor in rest.terms), divisor)
    args = (exact(rest, common) or 0, divisor // common)
    if isinstance(args[0], Expr) and len(args[0].terms) == 1:
        (monomial, factor), inner = args[0].terms[0], args[0].terms[0][0][0]
        plain = factor == 1 and len(monomial) == 1 and inner.kind == "floordiv"
        if plain and isinstance(inner.args[1], int) and inner.args[1] > 0:
            return floor_div(inner.args[0], inner.args[1] * args[1])
    return compound("floordiv", args, never_negative(rest))


def floor_mod(dividend: Dim, divisor: Dim) -> Dim:
    """The remainder with the sign of the divisor, which is not 0 in any valid run."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend % divisor
    if exact(dividend, divisor) is not None:
        return 0
    if isinstance(divisor, int) and divisor > 0 and isinstance(dividend, Expr):
        rest = polynomial({m: f % divisor for m, f in dividend.terms}, "+", (dividend, divisor))
        if isinstance(rest, int):
            return rest
        return compound("mod", (rest, divisor), True)
    return compound("mod", (dividend, divisor), never_negative(divisor))


def ceil_div(dividend: Dim, divisor: int) -> Dim:
    """The quotient rounded up."""
    return floor_div(dividend + (divisor - 1), divisor)


def trunc_div(dividend: Dim, divisor: Dim) -> Dim:
    """The quotient rounded towards 0, as ONNX divides integers."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        whole = abs(dividend) // abs(divisor)
        return whole if (dividend < 0) == (divisor < 0) else -whole
    if (quotient := exact(dividend, divisor)) is not None:
        return quotient
    if never_negative(dividend) and never_negative(divisor):
        return floor_div(dividend, divisor)
    return compound("div", (dividend, divisor), False)


def maximum(one: Dim, two: Dim) -> Dim:
    """The larger of two."""
    if ordered := _ordered(one, two):
        return ordered[1]
    size = never_negative(one) or never_negative(two)
    return compound("max", tuple(sorted((one, two), key=render)), size)


def minimum(one: Dim, two: Dim) -> Dim:
    """The smaller of two."""
    if ordered := _ordered(one, two):
        return ordered[0]
    size = never_negative(one) and never_negative(two)
    return compound("min", tuple(sorted((one, two), key=render)), size)


def _ordered(one: Dim, two: Dim) -> tuple[Dim, Dim] | None:
    """Two numbers, the smaller first; None where it is not known which that is."""
    if never_negative(two - one):
        return one, two
    if never_negative(one - two):
        return two, one
    return None


def broadcast(dims: Iterable[Dim]) -> Dim | None:
    """The size of an axis along which sizes are broadcast; None where numbers contradict.

    1 gives way to anything; a symbolic size beside a number k other than 1 is k or 1, so the
    result is k. Unequal symbolic sizes are kept as an operation: any of them may be 1.
    """
    others = [dim for dim in dict.fromkeys(_flat(dims)) if dim != 1]
    numbers = [dim for dim in others if isinstance(dim, int)]
    if numbers:
        return numbers[0] if len(numbers) == 1 else None
    if len(others) > 1:
        others = [dim for dim in others if not _follows(dim, others)]
    if len(others) < 2:
        return others[0] if others else 1
    return compound("broadcast", tuple(sorted(others, key=render)), True)


def _flat(dims: Iterable[Dim]) -> Iterator[Dim]:
    for dim in dims:
        atom = _single(dim)
        if atom is not None and atom.kind == "broadcast":
            yield from atom.args
        else:
            yield dim


def _single(dim: Dim) -> Atom | None:
    """The atom that the expression is, if it is one."""
    if isinstance(dim, int) or len(dim.terms) != 1:
        return None
    monomial, factor = dim.terms[0]
    return monomial[0] if factor == 1 and len(monomial) == 1 else None


def _follows(dim: Dim, others: Sequence[Dim]) -> bool:
    """min(k, N) beside N, k > 1: the two are equal, as the one is 1 only where the other is."""
    atom = _single(dim)
    if atom is None or atom.kind != "min":
        return False
    limits = [arg for arg in atom.args if isinstance(arg, int) and arg > 1]
    return len(limits) == 1 and any(arg in others for arg in atom.args)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """The number that a dimension is when named sizes are these; None where a size is missing."""
    if isinstance(dim, int):
        return dim
    result = 0
    for monomial, factor in dim.terms:
        for atom in monomial:
            number = _evaluate_atom(atom, sizes)
            if number is None:
                return None
            factor *= number
        result += factor
    return result


def _evaluate_atom(atom: Atom, sizes: Mapping[str, int]) -> int | None:
    if not atom.args or atom.text in sizes:
        return sizes.get(atom.text)
    args = [evaluate(arg, sizes) for arg in atom.args]
    numbers = [arg for arg in args if arg is not None]
    operation = _OPERATIONS.get(atom.kind)
    if operation is None or len(numbers) < len(args):
        return None
    result = operation(*numbers)
    return result if isinstance(result, int) else None


def _broadcast_numbers(*dims: int) -> Dim | None:
    return broadcast(dims)


_OPERATIONS: Mapping[str, Callable[..., Dim | None]] = {
    "floordiv": floor_div,
    "mod": floor_mod,
    "div": trunc_div,
    "max": maximum,
    "min": minimum,
    "broadcast": _broadcast_numbers,
    "+": add,
    "*": multiply,
}
