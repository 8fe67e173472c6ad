"""All rules in the order in which they are tried."""

from __future__ import annotations

from onnxslim.passes.fold.batchnorm import ARITHMETIC, BATCHNORM
from onnxslim.rewrite import Rule

RULES: tuple[Rule, ...] = (BATCHNORM, ARITHMETIC)
