"""A pass from outside: all that it takes is a class and an entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxslim import Pass, PassResult, ir, option
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined


@dataclass(frozen=True, kw_only=True)
class DoubleNegation(Pass):
    """Neg(Neg(x)) -> x."""

    name: ClassVar[str] = "double-negation"
    summary: ClassVar[str] = "take out what is negated twice"

    most: int = option(100, "how many to take out at most", "1 or more")

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most={self.most} given")

    def run(self, model: ir.Model, ctx: Context) -> PassResult:
        editor = ir.Editor(model)
        done, declined = 0, list[Declined]()
        for node in list(ir.nodes(model)):
            inner = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
            if (
                done == self.most
                or inner is None
                or (node.op_type, inner.op_type) != ("Neg", "Neg")
            ):
                continue
            if node.outputs[0].is_graph_output():
                declined.append(Declined(node.name or "", "its value is an output of the graph"))
                continue
            editor.replace_node(node, [], [inner.inputs[0]])
            done += 1
        editor.remove_dead()
        changed = Aspect.STRUCTURE if done else Aspect.NONE
        return PassResult(changed, {"removed": done}, tuple(declined))
