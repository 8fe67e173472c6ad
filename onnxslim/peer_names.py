"""What the options of the other onnxslim (PyPI, 0.1.98) mean here: its names, our rules.

The two cut the work in different places. A name of theirs stands for every rule of ours whose
name has the word that the table gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnxslim.passes.simplify.rules import RULES, list_rules
from onnxslim.pipeline.options import nearest
from onnxslim.pipeline.spec import PassSpec

PATTERNS: Mapping[str, str] = {
    "EliminationConcat": "concat",
    "EliminationReshape": "reshape",
    "EliminationReshapeAs": "reshape",
    "EliminationSlice": "slice",
    "EliminationTranspose": "transpose",
    "EliminationTransposeAsReshape": "transpose",
    "EliminationTransposeViewTranspose": "transpose",
    "EliminationUnsqueeze": "squeeze",
    "FusionConcatReshape": "reshape",
    "FusionConvAdd": "affine",
    "FusionConvBN": "batchnorm",
    "FusionConvMul": "affine",
    "FusionConvTransposeAdd": "affine",
    "FusionConvTransposeBN": "batchnorm",
    "FusionConvTransposeMul": "affine",
    "FusionGelu": "gelu",
    "FusionGemm": "gemm",
    "FusionGemmAdd": "affine",
    "FusionGemmMul": "affine",
    "FusionPadConv": "pad",
    "FusionReduce": "reduce",
}
"""Patterns of theirs: a word in the names of our rules."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "constant_folding": ("fold-constants", "inline-branches", "unroll-loops"),
    "graph_fusion": tuple(rule.name for rule in RULES),
    "dead_node_elimination": ("remove-copies", "unused-functions"),
    "subexpression_elimination": ("equal-nodes",),
    "weight_tying": ("equal-initializers",),
}
"""Optimizations of theirs: rules of ours."""


def unknown_patterns(names: Iterable[str]) -> list[str]:
    """One sentence for each name that is neither a pattern of theirs nor a rule of ours."""
    known = [*PATTERNS, *_rules()]
    return [
        f"no fusion pattern '{name}'{nearest(name, known)}" for name in names if name not in known
    ]


def unknown_steps(names: Iterable[str]) -> list[str]:
    """One sentence for each name that is no optimization of theirs."""
    return [
        f"no optimization '{name}'{nearest(name, STEPS)}" for name in names if name not in STEPS
    ]


def passes_for(
    skip_optimizations: Iterable[str] = (),
    skip_fusion_patterns: Iterable[str] = (),
    size_threshold: int | None = None,
) -> tuple[PassSpec, ...]:
    """The pass that does what is not skipped, none when all is; unknown names skip nothing."""
    steps = set(skip_optimizations)
    if steps >= set(STEPS):
        return ()
    options: dict[str, tuple[str, ...]] = {}
    if size_threshold is not None:
        options["max_bytes"] = (str(size_threshold),)
    if skipped := skipped_rules(steps, skip_fusion_patterns):
        options["skip"] = skipped
    return (PassSpec("simplify", options),)


def skipped_rules(steps: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Our rules that their names stand for, in the order of our rules."""
    given = set(patterns)
    words = [PATTERNS[name] for name in given if name in PATTERNS]
    skipped = {rule for step in steps for rule in STEPS.get(step, ())} | given
    return tuple(
        rule for rule in _rules() if rule in skipped or any(word in rule for word in words)
    )


def _rules() -> tuple[str, ...]:
    return tuple(rule.name for rule in list_rules())
