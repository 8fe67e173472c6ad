"""Sizes of axes: numbers, or integer polynomials in sizes that only a run tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Expr:
    """A size that is no number; equal expressions are equal sizes in every run."""

    name: str


Dim: TypeAlias = "int | Expr"
