"""Compiles trained ONNX models into smaller and faster ones, and proves that they still work.

`compress` is the compiler; `Pass` and `PassResult` are for passes of your own; the names are
imported when they are first used, so that `import onnxslim` costs nothing.
"""

import os.path as _path
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if not _path.isdir(_path.join(__path__[0], "passes")):  # a checkout without symlinks
    _top = _path.dirname(__path__[0])
    if _path.isdir(_path.join(_top, "passes", "quant")):
        __path__.append(_top)

if TYPE_CHECKING:
    from onnxslim import errors
    from onnxslim.api import Compressed, compress
    from onnxslim.dropin import slim
    from onnxslim.ir import load, save
    from onnxslim.pipeline.analysis import Aspect
    from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option
    from onnxslim.registry import list_passes
    from onnxslim.report.record import Report

__version__ = "0.1.0"

__all__ = [
    "Aspect",
    "Compressed",
    "Context",
    "Declined",
    "Pass",
    "PassResult",
    "Report",
    "compress",
    "errors",
    "list_passes",
    "load",
    "option",
    "save",
    "slim",
]

_HOME = {
    "Aspect": "onnxslim.pipeline.analysis",
    "Compressed": "onnxslim.api",
    "Context": "onnxslim.pipeline.base",
    "Declined": "onnxslim.pipeline.base",
    "Pass": "onnxslim.pipeline.base",
    "PassResult": "onnxslim.pipeline.base",
    "Report": "onnxslim.report.record",
    "compress": "onnxslim.api",
    "list_passes": "onnxslim.registry",
    "load": "onnxslim.ir",
    "register_fusion_pattern": "onnxslim.core.pattern.registry",
    "option": "onnxslim.pipeline.base",
    "save": "onnxslim.ir",
    "slim": "onnxslim.dropin",
}


def __getattr__(name: str) -> _Any:
    if name in ("core", "errors"):
        return _import_module(f"onnxslim.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'onnxslim' has no attribute '{name}'")
    value = getattr(_import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
