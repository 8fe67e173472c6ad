"""Choosing by trial on calibration samples: ranges, smoothing, rounding, what stays in float.

Every trial quantizes a snapshot of the float model and measures its outputs. The number of trials
is bounded: at most 4 for the settings and 5 for layers to leave in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.apply import node_id, plan_for, quantize
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.facts import Facts
from onnxslim.passes.quant.judge import Judge
from onnxslim.passes.quant.plan import Plan
from onnxslim.targets import Target

Alternatives = Callable[[Choices], Iterable[Choices]]

GOOD_DB = 30.0
"""Signal to noise of the outputs at which nothing more is tried."""

MARGIN_DB = 0.2
"""The gain for which a setting is changed; less is within the noise of a few samples."""

STEP_DB = 1.0
"""The gain that each further layer left in float must bring, at least."""


MOST_FLOAT = 32
"""Nodes that may be left in float for the sake of accuracy."""


@dataclass
class Search:
    """Trials on one prepared float model."""

    model: Model
    target: Target
    facts: Facts
    judge: Judge
    results: dict[Choices, float] = field(default_factory=dict["Choices", float])

    def score(self, choices: Choices) -> float:
        """Signal to noise in dB with these choices; every different trial is made once."""
        if choices in self.results:
            return self.results[choices]
        if choices.smooth and not self._smooths(choices):
            self.results[choices] = self.score(replace(choices, smooth=False))
        else:
            twin = ir.snapshot(self.model)
            quantize(Editor(twin), self.target, self.facts, choices)
            self.results[choices] = self.judge.sqnr_db(twin)
        return self.results[choices]

    def _smooths(self, choices: Choices) -> bool:
        """Whether any tensor would be smoothed."""
        plan = plan_for(self.model, self.target, self.facts, choices)
        return any(edge.smooth is not None for edge in plan.edges.values())

    def best(self, start: Choices, steps: Iterable[Alternatives]) -> Choices:
        """Greedy: at each step the best of its alternatives, if it is clearly better."""
        best = start
        for step in steps:
            if self.score(best) >= GOOD_DB:
                return best
            other = max(step(best), key=self.score)
            if self.score(other) > self.score(best) + MARGIN_DB:
                best = other
        return best

    def protect(self, choices: Choices, goal_db: float, share: float) -> Choices:
        """Leave the worst nodes in float, twice as many each time, while that pays.

        `goal_db` ends it, and so does `share`, the part of all int8 weights that may go.
        """
        if self.score(choices) >= goal_db:
            return choices
        plan = plan_for(self.model, self.target, self.facts, choices)
        ranking = _within(share, self.worst(plan), plan)
        best, count = choices, 1
        while self.score(best) < goal_db and count <= len(ranking):
            tried = replace(choices, excluded=choices.excluded | set(ranking[:count]))
            if self.score(tried) > self.score(best) + STEP_DB:
                best = tried
            count *= 2
        return best

    def worst(self, plan: Plan) -> list[str]:
        """The int8 nodes, those whose own tensors lose most by quantization first."""
        noise: dict[str, float] = {}
        for value, edge in plan.edges.items():
            db = self.facts.local_db(str(value.name), edge.dequantize)
            if db is None or edge.smooth is not None:
                continue
            for node in plan.around(value):
                noise[node_id(node)] = min(db, noise.get(node_id(node), db))
        return sorted(noise, key=lambda name: noise[name])


def _within(share: float, ranking: Sequence[str], plan: Plan) -> list[str]:
    """The part of a ranking whose weights are at most this share of all; at most 32 nodes."""
    sizes = {node_id(node): layer.weight.values.size for node, layer in plan.layers.items()}
    left = share * sum(sizes.values())
    chosen: list[str] = []
    for name in ranking:
        if sizes.get(name, 0) <= left and len(chosen) < MOST_FLOAT:
            left -= sizes.get(name, 0)
            chosen.append(name)
    return chosen
