"""How many elements a slice of an axis has."""

from __future__ import annotations

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim

_ENDLESS = 2**31 - 1
"""No axis is as long: bounds from here on mean the end."""


def sliced(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim | None:
    """The size of `[start:end:step]` after ONNX's rules for negative and far bounds, or None."""
    if not isinstance(step, int) or step == 0:
        return None
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(indices(size, start, end, step))
    if step < 0:
        return _backwards(size, start, end, step)
    first, last = _clamped(size, start), _clamped(size, end)
    if first is None or last is None:
        return None
    return dims.ceil_div(dims.maximum(last - first, 0), step)


def indices(size: int, start: int, end: int, step: int) -> range:
    """The elements that a slice takes. ONNX clamps a far start onto the axis, unlike Python."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    if size == 0:
        return range(0)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def _clamped(size: Dim, bound: Dim) -> Dim | None:
    """A bound counted from the front, between 0 and the size."""
    if isinstance(bound, int):
        if bound >= _ENDLESS:
            return size
        if bound <= -_ENDLESS:
            return 0
        return dims.minimum(bound, size) if bound >= 0 else dims.maximum(size + bound, 0)
    if dims.never_negative(bound):
        return dims.minimum(bound, size)
    if dims.positive(-bound):
        return dims.maximum(size + bound, 0)
    return None


def _backwards(size: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """From the last element to the first; other bounds are left alone."""
    from_last = isinstance(start, int) and (start == -1 or start >= _ENDLESS)
    to_first = isinstance(end, int) and end <= -_ENDLESS
    return dims.ceil_div(size, -step) if from_last and to_first else None
