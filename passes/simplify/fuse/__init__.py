"""Rules that make one standard operator of several: outputs stay equal to float rounding."""

from onnxslim.passes.fold.batchnorm import ARITHMETIC, BATCHNORM
from onnxslim.passes.simplify.fuse import (
    activations,
    before,
    chains,
    gemm,
    homogeneous,
    norms,
    pads,
    rotary,
    scales,
    splits,
)
from onnxslim.rewrite import Rule

RULES: tuple[Rule, ...] = (
    *activations.RULES,
    *norms.RULES,
    *pads.RULES,
    BATCHNORM,
    ARITHMETIC,
    *scales.RULES,
    *homogeneous.RULES,
    *before.RULES,
    *chains.RULES,
    *gemm.RULES,
    *rotary.RULES,
    *splits.RULES,
)
