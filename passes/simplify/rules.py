"""All rules in the order in which they are tried."""

from __future__ import annotations

from onnxslim.passes.fold.batchnorm import ARITHMETIC, BATCHNORM
from onnxslim.passes.simplify import fuse
from onnxslim.rewrite import Rule
from onnxslim.targets import Target

RULES: tuple[Rule, ...] = (*fuse.RULES, BATCHNORM, ARITHMETIC)


def rules_for(target: Target) -> tuple[Rule, ...]:
    """The rules whose results the target runs no slower than what they replace."""
    return tuple(rule for rule in RULES if not rule.makes or rule.makes in target.fused)
