"""Int8 for Conv, Gemm and MatMul, and for what lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxslim import ir
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.apply import node_id, quantize
from onnxslim.passes.quant.canonical import canonicalize
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.facts import Seen
from onnxslim.passes.quant.judge import Judge
from onnxslim.passes.quant.plan import tensors_to_see
from onnxslim.passes.quant.regions import find_regions
from onnxslim.passes.quant.search import (
    Search,
    bias_alternatives,
    range_alternatives,
    smooth_alternatives,
)
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option


@dataclass(frozen=True, kw_only=True)
class Quant(Pass):
    name: ClassVar[str] = "quant"
    summary: ClassVar[str] = "int8 weights and activations"
    guarded: ClassVar[bool] = True

    ranges: Literal["auto", "minmax", "percentile", "mse"] = option("auto", "how ranges of activations are chosen")
    percentile: float = option(99.999, "share of the numbers inside of the range")
    smooth: Literal["auto", "on", "off"] = option("auto", "")
    goal: float = option(20.0, "dB")
    float_share: float = option(0.1, "")

    def run(self, model: Model, ctx: Context) -> PassResult:
        target = ctx.env.target
        if ir.opset(model) < target.min_opset:
            ir.raise_opset(model, target.min_opset)
        editor = Editor(model)
        canonicalize(editor)
        ctx.analyses.invalidate(Aspect.ALL)
        regions = find_regions(model, target)
        names = tuple(str(v.name) for v in tensors_to_see(regions))
        import time
        t=time.time()
        stats = ctx.analyses.get(LayerStats(tensors=names))
        print('stats %.1f'%(time.time()-t))
        facts = Seen(stats)
        search = Search(model, target, facts, Judge(model, ctx.env.calib, 1), print)
        choices = Choices(method="mse" if self.ranges == "auto" else self.ranges, percentile=self.percentile)
        choices = search.best(choices, [range_alternatives, smooth_alternatives, bias_alternatives] if self.ranges=='auto' else [])
        choices = search.protect(choices, self.goal, self.float_share)
        print(choices)
        plan = quantize(editor, target, facts, choices)
        return PassResult(changed=Aspect.ALL, stats={"layers": len(plan.layers), "int8_nodes": len(plan.regions.nodes)}, declined=tuple(plan.declined))
