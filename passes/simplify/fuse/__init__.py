"""Rules that make one standard operator of several: outputs stay equal to float rounding."""

from onnxslim.passes.simplify.fuse import activations, norms
from onnxslim.rewrite import Rule

RULES: tuple[Rule, ...] = (*activations.RULES, *norms.RULES)
