"""torch as untyped modules: it is an extra that type checkers need not find."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A torch.Tensor."""

torch: Any = import_module("torch")
functional: Any = import_module("torch.nn.functional")
