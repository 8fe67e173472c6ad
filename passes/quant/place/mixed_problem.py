"""Operators, what each may become, and the tensors between them: the input of `mixed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

_SLACK = 1 + 1e-6  # what the solver takes for kept


@dataclass(frozen=True)
class Choice:
    """One precision of one operator.

    `noise` adds up over operators: that of the outputs, relative to their power. `size` is what
    counts against a limit of size. `reads` and `writes`: whether its activations, and what it
    makes, are integers.
    """

    precision: str
    ms: float
    noise: float = 0.0
    size: float = 0.0
    reads: bool = False
    writes: bool = False


@dataclass(frozen=True)
class Border:
    """A tensor, and what it costs to convert it, once for all that read it.

    `maker` is an operator's index; None for what always comes in float. `also_float`: something
    that is no operator of the problem reads it, in float.
    """

    maker: int | None
    readers: tuple[int, ...]
    quantize_ms: float
    dequantize_ms: float
    also_float: bool = False


@dataclass(frozen=True)
class Need:
    """An operator may read integers only where at least one of some others does."""

    operator: int
    others: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """A model to be chosen for."""

    operators: tuple[tuple[Choice, ...], ...]
    borders: tuple[Border, ...] = ()
    needs: tuple[Need, ...] = ()

    def __len__(self) -> int:
        """How many operators."""
        return len(self.operators)

    def picked(self, chosen: Sequence[int]) -> list[Choice]:
        """The choice of each operator."""
        return [choices[i] for choices, i in zip(self.operators, chosen, strict=True)]

    def ms(self, chosen: Sequence[int]) -> float:
        """The time of all operators and borders."""
        own = sum(choice.ms for choice in self.picked(chosen))
        return own + sum(self.border_ms(border, chosen) for border in self.borders)

    def noise(self, chosen: Sequence[int]) -> float:
        """The sum over operators."""
        return sum(choice.noise for choice in self.picked(chosen))

    def size(self, chosen: Sequence[int]) -> float:
        """The sum over operators."""
        return sum(choice.size for choice in self.picked(chosen))

    def unmet(self, chosen: Sequence[int]) -> list[int]:
        """The operators whose needs are not met."""
        reads = [choice.reads for choice in self.picked(chosen)]
        return [
            need.operator
            for need in self.needs
            if reads[need.operator] and not any(reads[other] for other in need.others)
        ]

    def border_ms(self, border: Border, chosen: Sequence[int]) -> float:
        """What one tensor costs with these choices."""
        maker = border.maker
        made = maker is not None and self.operators[maker][chosen[maker]].writes
        reads = [self.operators[r][chosen[r]].reads for r in border.readers]
        quantized = not made and any(reads)
        dequantized = made and (border.also_float or not all(reads))
        return border.quantize_ms * quantized + border.dequantize_ms * dequantized

    @cached_property
    def around(self) -> tuple[tuple[Border, ...], ...]:
        """The borders of each operator."""
        found: list[dict[Border, None]] = [{} for _ in self.operators]
        for border in self.borders:
            for operator in (*border.readers, *([] if border.maker is None else [border.maker])):
                found[operator][border] = None
        return tuple(map(tuple, found))


@dataclass(frozen=True)
class Limits:
    """What must be kept to."""

    noise: float = inf
    size: float = inf
    ms: float = inf

    def hold(self, problem: Problem, chosen: Sequence[int]) -> bool:
        """Whether choices are within all of them, and meet the needs of operators."""
        sums = problem.noise(chosen), problem.size(chosen), problem.ms(chosen)
        return self.excess(*sums) == 0 and not problem.unmet(chosen)

    def excess(self, noise: float, size: float, ms: float) -> float:
        """By how much sums are over the limits, as shares of these, together."""
        pairs = ((noise, self.noise), (size, self.size), (ms, self.ms))
        return sum(
            (value - most) / (most or 1.0)
            for value, most in pairs
            if value > most * _SLACK + 1e-300
        )
