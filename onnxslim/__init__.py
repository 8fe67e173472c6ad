"""Compiles trained ONNX models into smaller and faster ones, and proves that they still work."""

import os.path as _path

if not _path.isdir(_path.join(__path__[0], "passes")):  # a checkout without symlinks
    _top = _path.dirname(__path__[0])
    if _path.isdir(_path.join(_top, "passes", "quant")):
        __path__.append(_top)

__version__ = "0.1.0"
