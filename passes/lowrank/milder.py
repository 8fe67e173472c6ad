"""What a budget becomes after a check that failed, and between that and one that passed."""

from __future__ import annotations

_MILDER = 0.7  # of what was taken away, or of the error
_MOST_LEFT, _LEAST_ERROR = 0.97, 1e-3  # where it ends
_NEAR, _NEAR_ERROR = 0.02, 0.1  # shares, and errors relative, that differ by less are alike


def milder(option: str, value: float) -> float | None:
    """Three tenths less taken away, or as much less `error`; None where that is hardly any."""
    if option == "error":
        return _rounded(_MILDER * value) if _MILDER * value >= _LEAST_ERROR else None
    left = 1 - _MILDER * (1 - value)
    return _rounded(left) if left <= _MOST_LEFT else None


def between(option: str, failed: float, passed: float) -> float | None:
    """Halfway; None where both are near each other."""
    near = _NEAR_ERROR * failed if option == "error" else _NEAR
    return _rounded((failed + passed) / 2) if abs(failed - passed) > near else None


def _rounded(value: float) -> float:
    return round(value, 4)
