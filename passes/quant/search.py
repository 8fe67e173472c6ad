"""Choosing by trial on calibration samples: ranges, bias correction, smoothing, what stays float.

Every trial quantizes a snapshot of the float model and measures its outputs. The number of trials
is bounded: at most 4 for the settings and 5 for layers to leave in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.apply import node_id, plan_for, quantize
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.facts import Facts
from onnxslim.passes.quant.judge import Judge
from onnxslim.targets import Target

GOOD_DB = 30.0
"""Signal to noise of the outputs at which nothing more is tried."""

STEP_DB = 1.0
"""The gain that each further layer left in float must bring, at least."""


@dataclass
class Search:
    """Trials on one prepared float model."""

    model: Model
    target: Target
    facts: Facts
    judge: Judge
    progress: Callable[[str], None]
    results: dict[Choices, float] = field(default_factory=dict["Choices", float])

    def score(self, choices: Choices) -> float:
        """Signal to noise in dB with these choices; every trial is made once."""
        if choices not in self.results:
            twin = ir.snapshot(self.model)
            quantize(Editor(twin), self.target, self.facts, choices)
            self.results[choices] = self.judge.sqnr_db(twin)
            self.progress(f"trial {len(self.results)}: {self.results[choices]:.1f} dB")
        return self.results[choices]

    def best(self, start: Choices, steps: Iterable[Callable[[Choices], Iterable[Choices]]]) -> Choices:
        """Greedy: at each step the best of what is there and its alternatives."""
        best = start
        for step in steps:
            if self.score(best) >= GOOD_DB:
                return best
            best = max([best, *step(best)], key=self.score)
        return best

    def protect(self, choices: Choices, goal_db: float, share: float) -> Choices:
        """Leave the worst nodes in float, twice as many each time, while that pays.

        `goal_db` ends it, and so does `share`, the part of the int8 nodes that may go.
        """
        ranking = self.worst(choices)
        most = max(1, int(share * len(ranking)))
        best, count = choices, 1
        while self.score(best) < goal_db and count <= most:
            tried = replace(choices, excluded=choices.excluded | set(ranking[:count]))
            if self.score(tried) > self.score(best) + STEP_DB:
                best = tried
            count *= 2
        return best

    def worst(self, choices: Choices) -> list[str]:
        """The int8 nodes, those whose own tensors lose most by quantization first."""
        plan = plan_for(self.model, self.target, self.facts, choices)
        noise: dict[str, float] = {}
        for value, edge in plan.edges.items():
            db = self.facts.local_db(str(value.name), edge.dequantize)
            maker = plan.regions.maker(value)
            makers = [maker] if maker is not None else []
            for node in [*makers, *(node for node, _ in plan.regions.readers(value))]:
                if db is not None and edge.smooth is None:
                    noise[node_id(node)] = min(db, noise.get(node_id(node), db))
        return sorted(noise, key=lambda name: noise[name])


def range_alternatives(choices: Choices) -> Iterable[Choices]:
    """The other ways to choose ranges."""
    yield replace(choices, method="minmax")
    yield replace(choices, method="percentile", percentile=99.999)


def bias_alternatives(choices: Choices) -> Iterable[Choices]:
    """Biases as they were."""
    yield replace(choices, bias_correction=not choices.bias_correction)


def smooth_alternatives(choices: Choices) -> Iterable[Choices]:
    """Activations of MatMul and Gemm smoothed."""
    yield replace(choices, smooth=True)
