"""What is known of every tensor without running the model: type, shape, contents of shapes."""

from onnxslim.analyses.facts.dims import Dim, Expr
from onnxslim.analyses.facts.facts import Facts

__all__ = ["Dim", "Expr", "Facts"]
