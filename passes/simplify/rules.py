"""All rules in the order in which they are tried, and what can be said of them."""

from __future__ import annotations

from dataclasses import dataclass

from onnxslim.passes.simplify import eliminate, fuse
from onnxslim.passes.simplify.steps import STEPS
from onnxslim.rewrite import Rule
from onnxslim.targets import Target

RULES: tuple[Rule, ...] = (*eliminate.RULES, *fuse.RULES)


@dataclass(frozen=True)
class RuleInfo:
    """A rule in words: what `--list-rules` shows and `skip` takes."""

    name: str
    summary: str
    exact: bool  # outputs stay equal bit for bit; else to float rounding


def list_rules() -> tuple[RuleInfo, ...]:
    """Every step over the whole graph, then every rule, in the order in which they are tried."""
    steps = [RuleInfo(step.name, step.summary, True) for step in STEPS]
    return (*steps, *(RuleInfo(rule.name, rule.summary, rule.exact) for rule in RULES))


def rules_for(target: Target) -> tuple[Rule, ...]:
    """The rules whose results the target runs no slower than what they replace."""
    return tuple(rule for rule in RULES if not rule.makes or rule.makes in target.fused)
