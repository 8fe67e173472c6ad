"""Choosing by trial on calibration samples: ranges, smoothing, rounding, noise of single nodes.

Every trial quantizes a snapshot of the float model and measures its outputs. The number of trials
is bounded: at most 6 for the settings and, where the outputs miss their goal, one per node within
`SECONDS`; what stays in float then is chosen in `protection`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.analyses.sensitivity import Sensitivity, sensitivities
from onnxslim.ir import Editor, Model, Value
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.judge import MOST, Judge
from onnxslim.passes.quant.choose.trial import Trial, attempt
from onnxslim.passes.quant.decibels import BEST_DB
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for, quantize
from onnxslim.passes.quant.rewrite.plan import Edge, Plan
from onnxslim.targets import Target

Alternatives = Callable[[Choices], Iterable[Choices]]

GOOD_DB = 30.0
"""Signal to noise of the outputs at which nothing more is tried."""

MARGIN_DB = 0.2
"""The gain for which a setting is changed; less is within the noise of a few samples."""

FEW = 4
"""Samples for the trial of a single node."""

SECONDS = 20.0
"""For trials of single nodes; the others are predicted."""


@dataclass
class Search:
    """Trials on one prepared float model."""

    model: Model
    target: Target
    facts: Facts
    judge: Judge
    results: dict[Choices, float] = field(default_factory=dict["Choices", float])
    last: Trial | None = None  # the trial that was made last

    def score(self, choices: Choices) -> float:
        """Signal to noise in dB with these choices; every different trial is made once."""
        if choices in self.results:
            return self.results[choices]
        if choices.smooth and not self._smooths(choices):
            self.results[choices] = self.score(replace(choices, smooth=False))
        else:
            self.last = None  # frees its session before the next is opened
            self.last = attempt(self.model, self.judge.env, self.facts, choices)
            self.results[choices] = self.judge.sqnr_db(self.last.opened.session)
        return self.results[choices]

    def trial(self, choices: Choices, samples: int = MOST) -> float:
        """Signal to noise in dB with these choices and what is known now, on so many samples."""
        twin = ir.snapshot(self.model)
        quantize(Editor(twin), self.target, self.facts, choices)
        return self.judge.sqnr_db(twin, samples)

    def _smooths(self, choices: Choices) -> bool:
        """Whether any tensor would be smoothed."""
        plan = plan_for(self.model, self.target, self.facts, choices)
        return any(edge.smooth is not None for edge in plan.edges.values())

    def best(self, start: Choices, steps: Iterable[Alternatives], goal_db: float) -> Choices:
        """Greedy: at each step the best of its alternatives, if it is clearly better."""
        best = start
        for step in steps:
            if self.score(best) >= max(GOOD_DB, goal_db):
                return best
            other = max(step(best), key=self.score)
            if self.score(other) > self.score(best) + MARGIN_DB:
                best = other
        return best

    def sensitivities(self, plan: Plan, choices: Choices) -> list[Sensitivity]:
        """The int8 nodes of a plan, those that the outputs suffer from most first."""
        every = frozenset(map(node_id, plan.regions.nodes))

        def alone(name: str) -> float:
            only = replace(_without(choices, every - {name}), second_order=False)
            return self.trial(only, FEW)

        return sensitivities(self._local_db(plan), alone, SECONDS)

    def _local_db(self, plan: Plan) -> dict[str, float]:
        """Signal to noise of each node's own tensors, that of the worst of them."""
        noise = dict.fromkeys(map(node_id, plan.regions.nodes), BEST_DB)
        for value, edge in plan.edges.items():
            db = None if edge.smooth is not None else self._seen_db(value, edge)
            for node in plan.around(value) if db is not None else ():
                noise[node_id(node)] = min(db or 0.0, noise[node_id(node)])
        return noise

    def _seen_db(self, value: Value, edge: Edge) -> float | None:
        return self.facts.local_db(str(value.name), edge.dequantize)


def _without(choices: Choices, names: Iterable[str]) -> Choices:
    return replace(choices, excluded=choices.excluded | frozenset(names))


def weight_sizes(plan: Plan) -> dict[str, float]:
    """Node -> numbers in its weight; its part of them where layers share one, as the file has it
    once."""
    keys = {node: id(ir.constant(layer.layer.weight)) for node, layer in plan.layers.items()}
    users = Counter(keys.values())
    return {
        node_id(node): layer.weight.values.size / users[keys[node]]
        for node, layer in plan.layers.items()
    }
