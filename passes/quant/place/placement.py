"""Where int8 pays: operators that are slower in it here, borders counted, stay in float.

The float model and the int8 model are profiled once each, the choice is made for all operators
together (`mixed`), and the two models that come of it take turns: only what is faster beyond the
noise counts. A target that is not this machine gets no such choice, but its costs are assumed
where accuracy has a price. What was measured is kept in the cache folder of the run, if it has
one: then the next run decides alike. Without it, what is about as fast in both may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.attribution import attribute, name_by_outputs
from onnxslim.analyses.cost import cost_table
from onnxslim.analyses.measured import remembered
from onnxslim.analyses.shapes import Shapes, ShapeTable
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search
from onnxslim.passes.quant.place.costs import (
    Costs,
    Times,
    Work,
    assumed_alone_ms,
    assumed_times,
    costs_of,
    from_arrays,
    measured_times,
    to_arrays,
)
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.mixed import least_time
from onnxslim.passes.quant.place.precisions import ALONE, ALONE_4
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for, quantize
from onnxslim.passes.quant.rewrite.regions import Regions
from onnxslim.passes.quant.weight_only.alone import BITS, FEW, possible_alone, writes_alone
from onnxslim.pipeline.base import Context
from onnxslim.runtime.kernels import kernel_times
from onnxslim.runtime.latency import LatencyResult, interleaved_latency

LEAST_GAIN = 0.02
"""Of the time of the int8 model, below which nothing is tried."""

LEAST_MS = 0.3
"""A model that is faster than that is all overhead, of which profiles tell nothing."""

MARGINS = (1.0, 1.25)
"""By how much longer float is taken to be: in the second try, what gains little stays int8."""

_PROFILE_S, _TURNS_S = 0.5, 2.0


@dataclass
class Placement:
    """The costs of one prepared float model."""

    search: Search
    ctx: Context
    known: Known = field(default_factory=Known)

    def faster(self, choices: Choices) -> tuple[Choices, Mapping[str, str]]:
        """The choices with more operators in float where the whole model is faster by it, and for
        each of those the reason. As they are where nothing is measured or gained."""
        if choices not in self.known.faster:
            self.known.faster[choices] = self._faster(choices)
        return self.known.faster[choices]

    def _faster(self, choices: Choices) -> tuple[Choices, Mapping[str, str]]:
        costs = self.costs(choices)
        if not costs.measured:
            return choices, {}
        whole = costs.chosen(())
        if costs.problem.ms(whole) < LEAST_MS:
            return choices, {}
        for margin in MARGINS:
            found = least_time(costs.slowed(margin).problem)
            if found is None or found.chosen == whole:
                break
            gain = 1 - costs.problem.ms(found.chosen) / costs.problem.ms(whole)
            if gain < LEAST_GAIN:
                break
            floats = costs.floats(found.chosen)
            tried = replace(choices, excluded=choices.excluded | floats)
            if self._is_faster(tried, choices):
                return tried, {name: _reason(costs.ratio(name)) for name in floats}
        return choices, {}

    def costs(self, choices: Choices) -> Costs:
        """Of all operators that these choices make integers; measured where the target is here."""
        if choices not in self.known.costs:
            search = self.search
            regions = plan_for(search.model, search.target, search.facts, choices).regions
            shapes = self.ctx.analyses.get(Shapes())
            times = self._measured(choices, regions)
            times = times or assumed_times(self._work(regions.nodes), search.target.assumed)
            self.known.costs[choices] = costs_of(regions, times, lambda v: _elements(shapes, v))
        return self.known.costs[choices]

    def with_alone(self, choices: Choices) -> Costs:
        """`costs`, and those of layers of which the weight alone is in codes of 8 or 4 bits; not
        where the target is here but could not be timed."""
        costs, target = self.costs(choices), self.ctx.env.target
        if not writes_alone(target) or (target.here and not costs.measured):
            return costs
        names = possible_alone(self.search.model, costs.names)
        alone_ms = self._alone_ms if costs.measured else self._assumed_alone_ms
        for precision, bits in ((ALONE, BITS), (ALONE_4, FEW)):
            costs = costs.with_alone(precision, alone_ms(choices, costs, names, bits))
        return costs

    def _alone_ms(
        self, choices: Choices, costs: Costs, names: frozenset[str], bits: int
    ) -> Mapping[str, float]:
        """As measured with all of them so."""
        rest = replace(choices, excluded=choices.excluded | frozenset(costs.names), alone=names)
        tried = replace(rest, coarse=names if bits == FEW else frozenset[str]())
        found = self._profiled(tried, dict.fromkeys(names, "MatMul")) if names else None
        return {} if found is None else {n: t for n, t in found.int8_ms.items() if n in names}

    def _assumed_alone_ms(
        self, choices: Choices, costs: Costs, names: frozenset[str], bits: int
    ) -> Mapping[str, float]:
        """By the size of the work."""
        nodes = [node for node in self.search.model.graph if node_id(node) in names]
        return assumed_alone_ms(self._work(nodes), self.ctx.env.target.assumed, bits)

    def _work(self, nodes: Iterable[Node]) -> Work:
        shapes = self.ctx.analyses.get(Shapes())
        table = cost_table(self.search.model, shapes)
        sizes = {n: max((_elements(shapes, v) for v in n.outputs), default=0) for n in nodes}
        return Work(
            {node_id(n): table.macs(n) for n in sizes}, {node_id(n): k for n, k in sizes.items()}
        )

    def _measured(self, choices: Choices, regions: Regions) -> Times | None:
        env = self.ctx.env
        if not env.target.here or not env.calib:
            return None
        return self._profiled(choices, {node_id(node): ir.op(node) for node in regions.nodes})

    def _profiled(self, choices: Choices, operators: Mapping[str, str]) -> Times | None:
        """From profiles of the float model and of that with these choices."""
        env = self.ctx.env
        assert env.calib is not None
        in_float = ir.snapshot(self.search.model)
        name_by_outputs(in_float)
        models, feed = [in_float, self._twin(choices)], env.calib[0]

        def measure() -> Mapping[str, Array]:
            profiles = [kernel_times(model, feed, env.threads, _PROFILE_S) for model in models]
            if not all(profiles):
                return {}
            model = self.search.model
            before, after = (attribute(profile, model, operators) for profile in profiles)
            return to_arrays(measured_times(before, after, operators))

        try:
            found = remembered("kernels", models, feed, env, measure)
        except RuntimeUnavailable:
            return None
        return from_arrays(found) if found else None

    def takes_at_most(self, tried: Choices, choices: Choices, times: float) -> bool:
        """Whether with some choices the model takes at most so many times as long as with others,
        both timed here in turns; so it does where nothing can be."""
        found = self._race(tried, choices) if self.ctx.env.target.here else None
        return found is None or found.ratio(model=1, base=0) <= times

    def _is_faster(self, tried: Choices, choices: Choices) -> bool:
        found = self._race(tried, choices)
        return found is not None and found.is_slower(model=0, base=1)

    def _race(self, tried: Choices, choices: Choices) -> LatencyResult | None:
        """Both in turns, what is tried as the second; None where a model cannot be run."""
        env = self.ctx.env
        assert env.calib is not None
        models, feed = [self._twin(choices), self._twin(tried)], env.calib[0]

        def measure() -> Mapping[str, Array]:
            found = interleaved_latency(models, feed, env.threads, _TURNS_S, enough=_is_settled)
            return {"rounds": np.array(found.rounds)}

        try:
            rounds = remembered("races", models, feed, env, measure)["rounds"]
        except RuntimeUnavailable:
            return None
        return LatencyResult(tuple(map(tuple, rounds.tolist())))

    def _twin(self, choices: Choices) -> Model:
        """The model with these choices, its nodes named after their outputs."""
        twin = ir.snapshot(self.search.model)
        name_by_outputs(twin)
        quantize(Editor(twin), self.search.target, self.search.facts, choices)
        return twin


def _elements(shapes: ShapeTable, value: Value) -> int:
    return shapes.elements(value) or 0


def _is_settled(found: LatencyResult) -> bool:
    """Whether more rounds would say the same."""
    low, high = found.interval()
    return len(found.rounds) >= 15 and (high < 0.98 or low > 0.98)


def _reason(ratio: float) -> str:
    if ratio > 1.05:
        return f"in int8 it takes {ratio:.1f} times as long here"
    return "in int8 it saves less time here than the conversions around it cost"
