"""Runtimes to compile for. A target is data: rules that passes look up by operator."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from onnxslim.errors import ConfigError
from onnxslim.targets.base import Output, Role, StaticRule, Target
from onnxslim.targets.forms import FP8, INT7, INT8, UINT8, UINT16, Blocks, Form, Numbers
from onnxslim.targets.openvino import OPENVINO, OPENVINO_AVX2
from onnxslim.targets.ort_cpu import (
    ORT_CPU_ARM,
    ORT_CPU_AVX2,
    ORT_CPU_VNNI,
    for_processor,
    ort_cpu_here,
)
from onnxslim.targets.qnn import QNN
from onnxslim.targets.tensorrt import TENSORRT

__all__ = [
    "FP8",
    "INT7",
    "INT8",
    "UINT8",
    "UINT16",
    "Blocks",
    "Form",
    "Numbers",
    "Output",
    "Role",
    "StaticRule",
    "Target",
    "get_target",
    "targets",
]

_PROCESSORS = (ORT_CPU_VNNI, ORT_CPU_AVX2, ORT_CPU_ARM)
_OTHERS = (OPENVINO, OPENVINO_AVX2, QNN, TENSORRT)
_TARGETS: dict[str, Callable[[], Target]] = {
    "ort-cpu": ort_cpu_here,
    **{target.name: partial(for_processor, target) for target in _PROCESSORS},
    **{target.name: partial(replace, target) for target in _OTHERS},
}


def targets() -> tuple[str, ...]:
    """The names of all targets."""
    return tuple(sorted(_TARGETS))


def get_target(name: str) -> Target:
    """The target of this name; raises ConfigError with the nearest names for an unknown one."""
    if name in _TARGETS:
        return _TARGETS[name]()
    close = difflib.get_close_matches(name, _TARGETS, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"unknown target '{name}';{hint} there is: {', '.join(targets())}")
