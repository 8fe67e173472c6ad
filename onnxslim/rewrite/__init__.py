"""Local rewrites: rules, a bounded greedy driver, and a trace of what nearly matched."""

from onnxslim.rewrite.driver import Outcome, apply
from onnxslim.rewrite.rule import NearMiss, Rewrite, Rule

__all__ = ["NearMiss", "Outcome", "Rewrite", "Rule", "apply"]
