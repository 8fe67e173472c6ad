"""Runtimes to compile for. A target is data: rules that passes look up by operator."""

from __future__ import annotations

import difflib

from onnxslim.errors import ConfigError
from onnxslim.targets.base import Output, Role, StaticRule, Target
from onnxslim.targets.ort_cpu import ORT_CPU

__all__ = ["Output", "Role", "StaticRule", "Target", "get_target", "targets"]

_TARGETS = {target.name: target for target in (ORT_CPU,)}


def targets() -> tuple[str, ...]:
    """The names of all targets."""
    return tuple(sorted(_TARGETS))


def get_target(name: str) -> Target:
    """The target of this name; raises ConfigError with the nearest names for an unknown one."""
    if name in _TARGETS:
        return _TARGETS[name]
    close = difflib.get_close_matches(name, _TARGETS, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"unknown target '{name}';{hint} there is: {', '.join(targets())}")
