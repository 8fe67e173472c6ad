"""Int8 for Conv, Gemm and MatMul, and for what lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxslim import ir
from onnxslim.analyses.layer_stats import LayerStats, Statistics
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.quant.canonical import canonicalize
from onnxslim.passes.quant.emit import emit
from onnxslim.passes.quant.plan import Plan, Range, make_plan, tensors_to_see
from onnxslim.passes.quant.ranges import Method, Observed, find_range
from onnxslim.passes.quant.regions import find_regions
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option


@dataclass(frozen=True, kw_only=True)
class Quant(Pass):
    name: ClassVar[str] = "quant"
    summary: ClassVar[str] = "int8 weights and activations"
    guarded: ClassVar[bool] = True

    scheme: Literal["auto", "int8", "dynamic"] = option("auto", "kind of quantization")
    per_channel: bool = option(True, "one scale per output channel of a weight")
    ranges: Method = option("mse", "how ranges of activations are chosen")
    percentile: float = option(99.99, "share of the numbers inside of the range")
    ops: tuple[str, ...] = option((), "only these operators")
    skip: tuple[str, ...] = option((), "nodes to leave in float")
    bias_correction: bool = option(True, "restore the mean of each output")

    def run(self, model: Model, ctx: Context) -> PassResult:
        target = ctx.env.target
        if ir.opset(model) < target.min_opset:
            ir.raise_opset(model, target.min_opset)
        editor = Editor(model)
        canonicalize(editor)
        ctx.analyses.invalidate(Aspect.ALL)
        excluded: set[Node] = {n for n in model.graph if self.ops and ir.op(n) not in self.ops}
        regions = find_regions(model, target, excluded)
        names = tuple(str(v.name) for v in tensors_to_see(regions))
        stats = ctx.analyses.get(LayerStats(tensors=names))
        while True:
            plan = make_plan(
                regions,
                lambda v: self._range(stats, v),
                lambda v: self._mean(stats, v),
                self.per_channel,
            )
            if isinstance(plan, Plan):
                break
            excluded |= plan
            regions = find_regions(model, target, excluded)
        emit(editor, plan)
        return PassResult(changed=Aspect.ALL, stats={"layers": len(plan.layers), "int8_nodes": len(regions.nodes)}, declined=tuple(plan.declined))

    def _range(self, stats: Statistics, value: Value) -> Range | None:
        seen = stats.tensors.get(str(value.name))
        if seen is None:
            return None
        h = seen.histogram
        return find_range(Observed(seen.min, seen.max, h.counts, h.low, h.high), self.ranges, self.percentile)

    def _mean(self, stats: Statistics, value: Value) -> Array | None:
        seen = stats.tensors.get(str(value.name))
        if not self.bias_correction or seen is None or seen.channels is None:
            return None
        return seen.channels.mean
