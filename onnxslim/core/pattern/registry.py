"""The patterns that other packages have registered, for `onnxslim.slim` to apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from onnxslim.core.pattern import PatternMatcher

__all__ = ["DEFAULT_FUSION_PATTERNS", "get_fusion_patterns", "register_fusion_pattern"]

DEFAULT_FUSION_PATTERNS: dict[str, list[PatternMatcher]] = {}
"""Matchers by name, in the order of registration."""

T = TypeVar("T", bound=type[Any])


def register_fusion_pattern(
    fusion_pattern: PatternMatcher | None = None,
    *,
    priority: int | None = None,
    min_opset: int | None = None,
    max_opset: int | None = None,
) -> Any:
    """Let `slim` apply a matcher from now on: a call with an instance, or a class decorator."""
    if fusion_pattern is not None:
        DEFAULT_FUSION_PATTERNS.setdefault(fusion_pattern.name, []).append(fusion_pattern)
        return fusion_pattern
    return _decorator(priority, min_opset, max_opset)


def _decorator(
    priority: int | None, min_opset: int | None, max_opset: int | None
) -> Callable[[T], T]:
    def register(cls: T) -> T:
        made: PatternMatcher = cls(priority)
        made.min_opset = made.min_opset if min_opset is None else min_opset
        made.max_opset = made.max_opset if max_opset is None else max_opset
        register_fusion_pattern(made)
        return cls

    return register


def get_fusion_patterns(skip_fusion_patterns: Iterable[str] | None = None) -> dict[str, Any]:
    """The registered matchers by name, without those skipped."""
    skipped = set(skip_fusion_patterns or ())
    return {n: list(m) for n, m in DEFAULT_FUSION_PATTERNS.items() if n not in skipped}
