"""What the options of the other onnxslim (PyPI, 0.1.98) mean here: its names, our rules.

The two cut the work in different places. A name of theirs stands for every rule of ours whose
name has the word that the table gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnxslim.passes.simplify.rules import RULES
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

STEPS = (
    "constant_folding",
    "graph_fusion",
    "dead_node_elimination",
    "subexpression_elimination",
    "weight_tying",
)
"""Optimizations of theirs."""


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
    """The passes that do what is not skipped; names that nobody knows skip nothing.

    Without rules what is left of simplification is folding, which removes dead nodes as well.
    """
    steps = set(skip_optimizations)
    if steps >= {"constant_folding", "graph_fusion"}:
        return ()
    options: dict[str, tuple[str, ...]] = {}
    if size_threshold is not None:
        options["max_bytes"] = (str(size_threshold),)
    if "graph_fusion" in steps:
        return (PassSpec("fold", options),)
    if skipped := skipped_rules(skip_fusion_patterns):
        options["skip"] = skipped
    return (PassSpec("simplify", options),)


def skipped_rules(names: Iterable[str]) -> tuple[str, ...]:
    """Our rules that the names stand for, in the order of our rules."""
    given = set(names)
    words = [PATTERNS[name] for name in given if name in PATTERNS]
    return tuple(rule for rule in _rules() if rule in given or any(word in rule for word in words))


def _rules() -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.name for rule in RULES))
