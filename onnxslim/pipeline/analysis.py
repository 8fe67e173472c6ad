"""Analyses: facts computed from a model, cached until a pass changes what they read."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from onnxslim.ir import Model

if TYPE_CHECKING:
    from onnxslim.pipeline.base import Environment

T = TypeVar("T")


class Aspect(enum.Flag):
    """What of a model an analysis reads and a pass changes."""

    NONE = 0
    STRUCTURE = enum.auto()  # nodes, edges, names
    SHAPES = enum.auto()  # shapes and types of values
    WEIGHTS = enum.auto()  # contents of initializers
    NUMERICS = enum.auto()  # what the model computes, beyond rounding of folding
    ALL = STRUCTURE | SHAPES | WEIGHTS | NUMERICS


class Analysis(ABC, Generic[T]):
    """A question about a model, with its parameters: a frozen dataclass, and so a cache key.

    `compute` is a pure function of the model and of the environment; it never changes the model.
    """

    reads: ClassVar[Aspect] = Aspect.ALL

    @abstractmethod
    def compute(self, model: Model, analyses: AnalysisManager) -> T:
        """The answer; other analyses it needs come from the manager."""


class AnalysisManager:
    """Computes analyses on demand and forgets those that a change has made stale."""

    def __init__(self, model: Model, env: Environment) -> None:
        self._model = model
        self.env = env
        self._results: dict[Analysis[Any], Any] = {}
        self._reads: dict[Analysis[Any], Aspect] = {}
        self._computing: list[Analysis[Any]] = []

    def get(self, analysis: Analysis[T]) -> T:
        """The result of an analysis, computed now or before."""
        if analysis not in self._results:
            if analysis in self._computing:
                raise RuntimeError(f"analyses need each other: {self._computing}")
            self._computing.append(analysis)
            self._reads[analysis] = analysis.reads
            try:
                self._results[analysis] = analysis.compute(self._model, self)
            finally:
                self._computing.pop()
        if self._computing:  # a dependency: what it reads, its user reads too
            self._reads[self._computing[-1]] |= self._reads[analysis]
        return cast(T, self._results[analysis])

    def cached(self, analysis: Analysis[T]) -> T | None:
        """The result if it is known and still holds."""
        return cast("T | None", self._results.get(analysis))

    def invalidate(self, changed: Aspect) -> None:
        """Forget every analysis that reads something of what changed."""
        for analysis in [a for a in self._results if self._reads[a] & changed]:
            del self._results[analysis]
