"""onnx-ir without sympy until something asks for it: half of the time that importing us took.

onnx-ir imports sympy for arithmetic on symbolic dimensions, which we do in our own way.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_DEFERRED = ("sympy", "onnx_ir._symbolic_shapes")


class _Deferred(ModuleType):
    """Stands for a module in the modules that import it, and imports it at the first use."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # asked for while onnx-ir is being imported
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _import_onnx_ir() -> None:
    """Import onnx-ir; the stand-ins are in `sys.modules` meanwhile, not afterwards."""
    if "onnx_ir" in sys.modules:
        return
    made = {name: _Deferred(name) for name in _DEFERRED if name not in sys.modules}
    sys.modules.update(made)
    try:
        import_module("onnx_ir")
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


_import_onnx_ir()
