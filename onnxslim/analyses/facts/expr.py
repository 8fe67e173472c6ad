"""Sizes of axes: numbers, or integer polynomials in sizes that only a run tells.

A polynomial is kept expanded over atoms. An atom is a size that an input of the model declares, an
unknown that some node computes, or an operation that is no polynomial (floor division, remainder,
minimum, broadcast) over its operands. Atoms are equal when their texts are; a text says all that
the atom depends on. So equal expressions are equal numbers in every run; unequal ones may still be
equal in some run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TypeAlias

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LONGEST_TEXT = 160
MOST_TERMS = 24


class Atom:
    """What a polynomial is made of. `size` tells whether it is never negative."""

    __slots__ = ("args", "kind", "size", "text")

    def __init__(self, kind: str, text: str, size: bool, args: tuple[Dim, ...] = ()) -> None:
        self.kind = kind
        self.text = text
        self.size = size
        self.args = args

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Atom) and self.text == other.text)

    def __hash__(self) -> int:
        return hash(self.text)


Monomial: TypeAlias = "tuple[Atom, ...]"


class Expr:
    """An integer polynomial that is no number; equal expressions are equal in every run."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms  # sorted, without zeros; the constant term has the empty monomial
        self._hash = hash(terms)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        total = dict(self.terms)
        for monomial, factor in terms_of(other):
            total[monomial] = total.get(monomial, 0) + factor
        return polynomial(total, "+", (self, other))

    __radd__ = __add__

    def __neg__(self) -> Expr:
        return Expr(tuple((monomial, -factor) for monomial, factor in self.terms))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        total: dict[Monomial, int] = {}
        for one, a in self.terms:
            for two, b in terms_of(other):
                monomial = tuple(sorted(one + two, key=_text_of)) if one and two else one or two
                total[monomial] = total.get(monomial, 0) + a * b
        return polynomial(total, "*", (self, other))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return render(self)

    __repr__ = __str__

    @property
    def atoms(self) -> frozenset[Atom]:
        """The atoms that the polynomial mentions itself, not those inside of them."""
        return frozenset(atom for monomial, _ in self.terms for atom in monomial)


Dim: TypeAlias = "int | Expr"


def _text_of(atom: Atom) -> str:
    return atom.text


def terms_of(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The terms of a polynomial, or of a number as one."""
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def _order(term: tuple[Monomial, int]) -> tuple[int, list[str]]:
    """Higher degrees first, the constant last."""
    return -len(term[0]), [atom.text for atom in term[0]]


def polynomial(total: dict[Monomial, int], operator: str, args: tuple[Dim, ...]) -> Dim:
    """The polynomial of these terms; one that is too long is kept as the operation it came from."""
    terms = [(monomial, factor) for monomial, factor in total.items() if factor]
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    if len(terms) > MOST_TERMS:  # kept as an operation, so that nothing grows without bound
        return compound(operator, tuple(sorted(args, key=render)), all(map(never_negative, args)))
    return Expr(tuple(sorted(terms, key=_order)))


def _of(atom: Atom) -> Expr:
    return Expr((((atom,), 1),))


def named(name: str) -> Expr:
    """A size that the model's inputs declare under this name."""
    text = name if _PLAIN.fullmatch(name) else repr(name)
    return _of(Atom("name", text, True, ()))


def opaque(number: int, size: bool = True) -> Expr:
    """An unknown of its own: a size, or any integer."""
    return _of(Atom("unknown", f"?{number}" if size else f"~{number}", size))


def compound(kind: str, args: tuple[Dim, ...], size: bool) -> Expr:
    """An operation that is no polynomial, or not kept as one."""
    text = f"{kind}({', '.join(map(render, args))})"
    if len(text) > _LONGEST_TEXT:
        text = f"{kind}(#{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()})"
    return _of(Atom(kind, text, size, args))


def render(dim: Dim) -> str:
    """The dimension as text: `2*N*C + 1`."""
    if isinstance(dim, int):
        return str(dim)
    parts: list[str] = []
    for monomial, factor in dim.terms:
        body = "*".join(atom.text for atom in monomial)
        if not body:
            parts.append(str(factor))
        else:
            parts.append({1: body, -1: f"-{body}"}.get(factor, f"{factor}*{body}"))
    return " + ".join(parts).replace("+ -", "- ")


def never_negative(dim: Dim) -> bool:
    """Whether the dimension is certainly at least 0; False where that cannot be told."""
    if isinstance(dim, int):
        return dim >= 0
    return all(factor > 0 and all(a.size for a in monomial) for monomial, factor in dim.terms)


def positive(dim: Dim) -> bool:
    """Whether the dimension is certainly at least 1."""
    return never_negative(dim - 1)


def total(dims: Iterable[Dim]) -> Dim:
    """The product: the number of elements of a shape."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result
