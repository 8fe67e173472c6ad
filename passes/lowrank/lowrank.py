"""Low-rank factorization: a linear layer becomes two that together cost less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import ClassVar, Literal

from onnxslim import ir
from onnxslim.analyses.cost import Cost
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.lowrank.candidates import (
    Candidate,
    Cut,
    candidates,
    cuts,
    decibels,
    pair,
    relative_error,
    rows_wanted,
)
from onnxslim.passes.lowrank.emit import emit
from onnxslim.passes.lowrank.gain import gains
from onnxslim.passes.lowrank.quantized import float_again, quantize_again
from onnxslim.passes.lowrank.refit import refit
from onnxslim.passes.lowrank.select import Decision, Goal, pick, reached
from onnxslim.passes.lowrank.survey import Site, survey
from onnxslim.passes.lowrank.timing import Speed, measure
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer, Pass, PassResult, option

_ERROR = 0.03  # 99.9 % of a layer's variance stays, which is about lossless
_ERROR_DATA_FREE = 0.01
_ROUNDS = 4  # of choosing anew without the pairs that turned out slow


@dataclass(frozen=True, kw_only=True)
class Lowrank(Pass):
    """Conv, Gemm, MatMul -> two of the same kind, where the two cost less.

    The model is measured once (`survey`), every cut at every rank gets its loss in closed form
    (`candidates`), one choice is made for the whole model (`select`), slow pairs are dropped
    (`timing`), the rest is written (`emit`) and the second factors are fitted again (`refit`).
    BatchNormalization is folded first; a model that `quant` has quantized is quantized again.
    """

    name: ClassVar[str] = "lowrank"
    summary: ClassVar[str] = "factorize linear layers by what their inputs are"
    guarded: ClassVar[bool] = True

    ratio: float | None = option(None, "MACs of the whole model after over before", "0 to 1")
    error: float | None = option(
        None, "greatest relative error of a layer's output; without ratio 0.03, 0.01 without data",
        "0 to 1",
    )  # fmt: skip
    scheme: Literal["auto", "channel", "spatial", "pointwise"] = option(
        "auto", "how kernels are cut; auto takes the least loss per MAC"
    )
    refit: bool = option(True, "fit second factors to the original outputs, if that helps")
    measure: bool = option(True, "keep only pairs that are measured to be faster")
    multiple: int = option(0, "ranks are multiples of it; 0 asks the target", "0 or more")
    min_dim: int = option(16, "layers with fewer inputs or outputs stay", "1 or more")
    skip: tuple[str, ...] = option((), "nodes to leave as they are (names, * and ?)")

    def __post_init__(self) -> None:
        for key in ("ratio", "error"):
            value = getattr(self, key)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{key}={value:g} given, expected a number between 0 and 1")
        if self.multiple < 0:
            raise ValueError(f"multiple={self.multiple} given, expected 0 or more")
        if self.min_dim < 1:
            raise ValueError(f"min_dim={self.min_dim} given, expected 1 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Factorize in place.

        Raises:
            OptionError: no choice of ranks meets `ratio`; says the nearest that can be met.
            RuntimeUnavailable: there are calibration samples and the model cannot be run.
        """
        before = ir.snapshot(model)
        float_again(model, ctx)
        editor = Editor(model)
        fuse_batchnorm(editor)
        ctx.analyses.invalidate(Aspect.ALL)
        run = _Run(self, model, ctx, editor)
        run.choose()
        layers = run.write()
        if not layers:
            ir.restore(model, before)
            ctx.analyses.invalidate(Aspect.ALL)
            return PassResult(declined=tuple(run.declined), notes=tuple(run.notes))
        ctx.analyses.invalidate(Aspect.ALL)
        again = quantize_again(model, ctx)
        return PassResult(
            changed=Aspect.ALL,
            stats={**run.stats(), **{f"quant_{k}": v for k, v in again.stats.items()}},
            declined=(*run.declined, *again.declined),
            layers=(*layers, *again.layers),
            names=again.names,
            notes=(*run.notes, *again.notes),
        )


@dataclass
class _Run:
    """One run of the pass: what is known, chosen and said so far."""

    options: Lowrank
    model: Model
    ctx: Context
    editor: Editor
    declined: list[Declined] = field(default_factory=list[Declined])
    notes: list[str] = field(default_factory=list[str])
    decisions: list[Decision] = field(default_factory=list[Decision])
    speeds: dict[str, Speed] = field(default_factory=dict[str, Speed])
    total: int = 0
    left: float = 1.0
    refitted: int = 0

    def choose(self) -> None:
        """Decide which layers are cut and how."""
        sites, found = self._survey()
        error = self.options.error
        if error is None and (self.options.ratio is None or self.data_free):
            error = _ERROR_DATA_FREE if self.data_free else _ERROR
        goal = Goal(self.options.ratio, error, self.total)
        options = [
            goal.allowed(candidates(site, of_site))
            for site, of_site in zip(sites, found, strict=True)
        ]
        weights = self._weights(sites, found)
        self._settle(sites, options, weights, goal)

    @property
    def data_free(self) -> bool:
        """Whether there are only weights to look at."""
        return self.ctx.env.calib is None

    def _survey(self) -> tuple[list[Site], list[list[Cut]]]:
        ctx, options = self.ctx, self.options
        self.total = int(ctx.analyses.get(Cost()).total_macs)
        sites, declined = survey(self.model, ctx, options.skip, options.min_dim)
        self.declined.extend(declined)
        if sites or declined:
            self._warn(sites)
        else:
            self.notes.append("lowrank found no Conv, Gemm or MatMul")
        found: list[list[Cut]] = []
        for of_site in ctx.env.executor.map(self._cuts, sites):
            found.append(of_site)
            ctx.env.progress("factorizing layers", len(found), len(sites))
        return sites, found

    def _cuts(self, site: Site) -> list[Cut]:
        target = self.ctx.env.target
        own = target.conv_multiple if site.layer.kind == "conv" else target.rank_multiple
        return cuts(site, self.options.scheme, self.options.multiple or own)

    def _warn(self, sites: Sequence[Site]) -> None:
        if self.data_free:
            error = self.options.error or _ERROR_DATA_FREE
            self.notes.append(
                "lowrank saw no calibration samples: it looked at the weights alone and takes "
                f"only ranks whose relative error is at most {error:g}; give --calib for more"
            )
        few = [(site.name, n) for site in sites if (n := rows_wanted(site))]
        if few:
            name, most = max(few, key=lambda item: item[1])
            self.notes.append(
                f"{len(few)} layers saw fewer inputs than they have features and were damped; "
                f"{name} needs {most} more rows"
            )

    def _weights(self, sites: Sequence[Site], found: Sequence[Sequence[Cut]]) -> list[float]:
        """How much a layer's relative loss counts: the root of its measured gain, which stands
        between counting all layers alike and believing one disturbed run each."""
        if self.options.ratio is None or self.data_free:
            return [1.0] * len(sites)
        return [sqrt(gain) for gain in gains(self.model, sites, found, self.ctx.env)]

    def _settle(
        self,
        sites: Sequence[Site],
        options: list[list[Candidate]],
        weights: Sequence[float],
        goal: Goal,
    ) -> None:
        """Choose, measure, and choose anew without what was slow."""
        strict = not self.data_free and self.options.error is None
        for _ in range(_ROUNDS):
            chosen = pick(options, weights, goal, strict)
            self.left = reached(options, chosen, goal.total_macs)
            taken = [
                (i, candidate)
                for i, at in enumerate(chosen)
                if (candidate := options[i][at]).cut is not None
            ]
            made = list(
                self.ctx.env.executor.map(
                    _decide, [sites[i] for i, _ in taken], [c for _, c in taken]
                )
            )
            slow = self._slow(made)
            self.decisions = [d for d in made if d.site.name not in slow]
            if not slow:
                break
            strict = False  # what the clock forbids is no fault of the budget
            for i, candidate in taken:
                if sites[i].name in slow:
                    options[i] = [o for o in options[i] if o.cut is None or o.macs < candidate.macs]
        self._explain(sites, goal)

    def _slow(self, made: Sequence[Decision]) -> set[str]:
        """The layers whose pair is not faster, by the clock."""
        if not self.options.measure:
            return set()
        slow: set[str] = set()
        for number, decision in enumerate(made):
            self.ctx.env.progress("measuring pairs", number, len(made))
            speed = measure(decision.site, decision.pair, self.ctx.env)
            if speed is None:
                continue
            self.speeds[decision.site.name] = speed
            if not speed.faster:
                slow.add(decision.site.name)
        return slow

    def _explain(self, sites: Sequence[Site], goal: Goal) -> None:
        """A reason for every layer that stays."""
        cut = {d.site.name: d for d in self.decisions}
        for site in sites:
            if site.name not in cut:
                self.declined.append(Declined(site.name, self._reason(site, goal)))
        saved = sum(d.site.shape.macs - d.candidate.macs for d in self.decisions)
        self.left = 1 - saved / max(self.total, 1)
        if goal.ratio is not None and self.left > goal.ratio:
            self.notes.append(
                f"ratio={goal.ratio:g} was not met: {self.left:.3f} of the MACs are left, the "
                "least that the allowed error and measured speed leave"
            )

    def _reason(self, site: Site, goal: Goal) -> str:
        speed = self.speeds.get(site.name)
        if speed is not None and not speed.faster:
            return (
                f"the pair is not faster: {speed.layer_ms:.3g} ms -> {speed.pair_ms:.3g} ms "
                "for the layer alone"
            )
        if goal.error is not None:
            return f"no rank that costs less has a relative error of at most {goal.error:g}"
        return "the budget is met without it, or no rank costs less"

    def write(self) -> list[Layer]:
        """Put the pairs into the model and fit their second factors again."""
        reference = ir.snapshot(self.model)
        rows: list[Layer] = []
        names: list[str] = []
        for decision in self.decisions:
            output = str(decision.site.layer.node.outputs[0].name)
            try:
                emit(self.editor, decision.site.layer, decision.site.shape, decision.pair)
            except EditError as error:
                self.declined.append(Declined(decision.site.name, str(error)))
                continue
            names.append(output)
            rows.append(self._row(decision))
        if rows:
            self.editor.remove_dead()
        if names and self.options.refit and not self.data_free:
            done, why = refit(reference, self.model, names, self.ctx.env)
            self.refitted = 0 if done is None else done.layers
            self.notes.append(
                f"refit not kept: {why}" if done is None else
                f"{done.layers} second factors fitted again: error of the outputs on samples "
                f"held out {done.before:.3g} -> {done.after:.3g}"
            )  # fmt: skip
        return rows

    def _row(self, decision: Decision) -> Layer:
        site, made = decision.site, decision.pair
        error = relative_error(site, made)
        share = decision.candidate.macs / site.shape.macs
        speed = self.speeds.get(site.name)
        timed = "" if speed is None else f", {speed.layer_ms:.3g} -> {speed.pair_ms:.3g} ms"
        action = f"{made.scheme.name} rank {made.rank}, {share:.2f} of the MACs{timed}"
        return Layer(site.name, ir.op(site.layer.node), action, decibels(error))

    def stats(self) -> dict[str, int | float | str]:
        """Figures for the report."""
        return {
            "layers": len(self.decisions),
            "macs_before": self.total,
            "macs_ratio": round(self.left, 4),
            "refitted": self.refitted,
        }


def _decide(site: Site, candidate: Candidate) -> Decision:
    if candidate.cut is None:
        raise ValueError("a layer that stays needs no pair")
    made = pair(site, candidate.cut, candidate.rank)
    return Decision(site, candidate, made)
