"""What a model costs: multiply-accumulates per node, and bytes of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.macs import MACS, NodeSizes, UnknownSize
from onnxslim.analyses.shapes import Shapes, ShapeTable
from onnxslim.ir import Model, Node, Value
from onnxslim.pipeline.analysis import Analysis, AnalysisManager, Aspect


@dataclass(frozen=True)
class CostTable:
    """The multiply-accumulates (MACs) of one run of one sample, node by node.

    Nodes of subgraphs count once, whether and however often they run. `unknown` holds nodes that
    multiply but whose shapes are not known, with the reason; they count as zero.
    """

    counts: Mapping[Node, int]
    unknown: Mapping[Node, str]
    weight_bytes: int

    def macs(self, node: Node) -> int:
        """The MACs of a node; zero for one that only moves, adds or compares."""
        return self.counts.get(node, 0)

    @property
    def total_macs(self) -> int:
        """The MACs of all nodes of which they are known."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Cost(Analysis[CostTable]):
    """MACs by the shapes of one real run, else by those that inference knows."""

    reads = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS

    def compute(self, model: Model, analyses: AnalysisManager) -> CostTable:
        """Linear in nodes, and one run of the model for the shapes."""
        return cost_table(model, analyses.get(Shapes()))


def cost_table(model: Model, shapes: ShapeTable) -> CostTable:
    """The costs of a model whose shapes are known already."""
    counts: dict[Node, int] = {}
    unknown: dict[Node, str] = {}
    called = {(domain, name) for domain, name, _ in model.functions}
    for scope in ir.scopes(model):
        if isinstance(scope, ir.Function):
            continue  # its shapes are those of each call
        for node in scope:
            if (node.domain, node.op_type) in called:
                unknown[node] = "it calls a function of the model"
            elif (count := MACS.get(ir.op(node))) is not None:
                try:
                    counts[node] = count(_sizes(node, shapes))
                except UnknownSize as error:
                    unknown[node] = str(error)
    return CostTable(counts, unknown, ir.weight_bytes(model))


def _sizes(node: Node, shapes: ShapeTable) -> NodeSizes:
    def of(value: Value | None) -> tuple[int, ...] | None:
        return None if value is None else shapes.sizes(value)

    return NodeSizes(node, tuple(map(of, node.inputs)), tuple(map(of, node.outputs)))
