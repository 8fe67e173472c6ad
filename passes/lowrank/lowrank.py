"""Low-rank factorization: a linear layer becomes two that together cost less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.lowrank.candidates import Unit
from onnxslim.passes.lowrank.choices import choices
from onnxslim.passes.lowrank.gather import POWERS, Evidence, few_rows, gather
from onnxslim.passes.lowrank.merge import merge_pairs
from onnxslim.passes.lowrank.milder import between, milder
from onnxslim.passes.lowrank.quantized import float_again, quantize_again
from onnxslim.passes.lowrank.select import OPTIONS, Goal
from onnxslim.passes.lowrank.settle import Settled, Settling, declined
from onnxslim.passes.lowrank.timing import Clock, turns
from onnxslim.passes.lowrank.trial import can_judge, least_error
from onnxslim.passes.lowrank.write import write
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option

_ERROR = 0.03  # 99.9 % of a layer's variance stays, which is about lossless
_ERROR_DATA_FREE = 0.01
_TRIED = 50_000_000  # parameters of layers: of larger models pairs are not made twice


@dataclass(frozen=True, kw_only=True)
class Lowrank(Pass):
    """Conv, Gemm, MatMul -> two or three of the same kind, where those cost less.

    The model is measured once (`gather`), every cut at every rank gets its loss in closed form
    (`candidates`, `units`), one choice is made for the whole model (`select`) without what is slow
    (`settle`), it is written (`write`) and the last factors are fitted again (`refit`).
    BatchNormalization is folded first and pairs that do not pay are merged (`merge`); a model that
    `quant` has quantized is quantized again.
    """

    name: ClassVar[str] = "lowrank"
    summary: ClassVar[str] = "factorize linear layers by what their inputs are"
    guarded: ClassVar[bool] = True
    inlines: ClassVar[bool] = True

    ratio: float | None = option(None, "MACs of the whole model after over before", "0 to 1")
    params: float | None = option(None, "parameters after over before, instead of ratio", "0 to 1")
    latency: float | None = option(
        None, "time of a run after over before, instead of ratio", "0 to 1"
    )
    error: float | None = option(
        None, "greatest relative error of a layer's output; without a budget 0.03, 0.01 without "
        "data", "0 to 1",
    )  # fmt: skip
    scheme: Literal["auto", "channel", "spatial", "pointwise", "tucker", "joint", "pivoted"] = (
        option("auto", "how layers are cut; auto takes the least loss for what it costs")
    )
    refit: bool = option(True, "fit second factors to the original outputs, if that helps")
    activation: bool = option(True, "fit them to what the activation after them leaves")
    measure: bool = option(True, "keep only pairs that are measured to be faster")
    multiple: int = option(0, "ranks are multiples of it; 0 asks the target", "0 or more")
    min_dim: int = option(16, "layers with fewer inputs or outputs stay", "1 or more")
    skip: tuple[str, ...] = option((), "nodes to leave as they are (names, * and ?)")

    def __post_init__(self) -> None:
        for key in ("ratio", "params", "latency", "error"):
            value = getattr(self, key)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{key}={value:g} given, expected a number between 0 and 1")
        given = [key for key in OPTIONS.values() if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} given, expected one budget")
        if self.latency is not None and not self.measure:
            raise ValueError("latency given without measuring, expected measure=true")
        if self.multiple < 0:
            raise ValueError(f"multiple={self.multiple} given, expected 0 or more")
        if self.min_dim < 1:
            raise ValueError(f"min_dim={self.min_dim} given, expected 1 or more")

    @property
    def budget(self) -> tuple[Unit, float | None]:
        """What is counted, and the share of it that may stay; None without a budget."""
        units: tuple[Unit, ...] = ("macs", "params", "ms")
        found = [(u, getattr(self, OPTIONS[u])) for u in units]
        return next((item for item in found if item[1] is not None), ("macs", None))

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Factorize in place.

        Raises:
            OptionError: no choice of ranks meets the budget; says the nearest that can be met. Or a
                latency is wanted of another machine.
            RuntimeUnavailable: there are calibration samples and the model cannot be run.
        """
        if self.latency is not None and not ctx.env.target.here:
            raise OptionError(
                f"lowrank: latency is measured, and '{ctx.env.target.name}' is not the runtime of "
                "this machine; give ratio or params instead"
            )
        before = ir.snapshot(model)
        float_again(model, ctx)
        editor = Editor(model)
        fuse_batchnorm(editor)
        merged = merge_pairs(model, editor, self.skip)
        ctx.analyses.invalidate(Aspect.ALL)
        known, goal, settled = self.plan(model, ctx)
        written = write(model, ctx, editor, settled, self.refit, self.activation)
        notes = [*self._said(known, ctx), *settled.notes, *written.notes]
        stays = (*known.declined, *declined(known, settled, goal), *written.declined)
        if merged:
            pairs = "1 pair of layers that costs more than one was"
            if merged > 1:
                pairs = f"{merged} pairs of layers that cost more than one were"
            notes.append(f"{pairs} merged first")
        if not written.layers and not merged:
            ir.restore(model, before)
            ctx.analyses.invalidate(Aspect.ALL)
            return PassResult(declined=stays, notes=tuple(notes))
        ctx.analyses.invalidate(Aspect.ALL)
        again = quantize_again(model, ctx)
        return PassResult(
            changed=Aspect.ALL,
            stats={
                "layers": len(written.layers),
                "merged": merged,
                "macs_before": int(known.totals["macs"]),
                **({"error": goal.error} if goal.share is None and goal.error else {}),
                **{f"{unit}_ratio": round(left, 4) for unit, left in settled.left.items()},
                "loss_gap": round(settled.gap, 4),
                "gain_power": settled.power,
                "refitted": written.refitted,
                **{f"quant_{k}": v for k, v in again.stats.items()},
            },
            declined=(*stays, *again.declined),
            layers=(*written.layers, *again.layers),
            names=again.names,
            notes=(*notes, *again.notes),
        )

    def stricter(self, result: PassResult) -> Lowrank | None:
        """With less taken away, or less error allowed; None where that would be hardly any."""
        option, value = self._bound(result)
        return self._with(option, milder(option, value) if result.layers else None)

    def between(self, result: PassResult, passed: Pass) -> Lowrank | None:
        """Halfway between what was too much and what was not, unless that is near."""
        option, value = self._bound(result)
        return self._with(option, between(option, value, getattr(passed, option)))

    def _bound(self, result: PassResult) -> tuple[str, float]:
        """The option that bounds what is taken away, and its value."""
        unit, share = self.budget
        if share is not None:
            return OPTIONS[unit], share
        return "error", float(result.stats.get("error", self.error or _ERROR))

    def _with(self, option: str, value: float | None) -> Lowrank | None:
        changed: dict[str, Any] = {option: value}
        return None if value is None else replace(self, **changed)

    def plan(self, model: Model, ctx: Context) -> tuple[Evidence, Goal, Settled]:
        """What is known, wanted and to be done; the model stays as it is. Raises like `run`."""
        clock = Clock(ctx.env)
        known = gather(self, model, ctx, clock)
        goal = self._goal(model, ctx, known)
        made: list[Settled] = []
        for power in self._powers(known, goal, ctx):
            known.weigh(power)
            made.append(self._settled(model, ctx, known, goal, clock))
            made[-1].power = power
        return known, goal, made[least_error(model, ctx, made)]

    def _powers(self, known: Evidence, goal: Goal, ctx: Context) -> Sequence[float]:
        """Of the gains: more than one where choices can be made and compared in little time."""
        if goal.share is None or goal.unit == "ms" or not can_judge(ctx):
            return POWERS[:1]
        numbers = sum(site.shape.params for site in known.sites)
        return POWERS if numbers <= _TRIED else POWERS[-1:]

    def _settled(
        self, model: Model, ctx: Context, known: Evidence, goal: Goal, clock: Clock
    ) -> Settled:
        strict = ctx.env.calib is not None and self.error is None
        settling = Settling(known, choices(known, goal), goal, ctx, clock, strict, self.measure)
        return settling.settle(model)

    def _goal(self, model: Model, ctx: Context, known: Evidence) -> Goal:
        """The budget, with what the whole model costs now; by error alone, milliseconds count where
        they were measured."""
        unit, share = self.budget
        error = self.error
        if error is None and (share is None or ctx.env.calib is None):
            error = _ERROR_DATA_FREE if ctx.env.calib is None else _ERROR
        if share is None and any(known.times.values()):
            return Goal("ms", None, error, sum(t.layer_ms for t in known.times.values() if t))
        if unit == "ms":
            known.totals["ms"] = turns([model], ctx.env).ms[0]
        return Goal(unit, share, error, known.totals[unit])

    def _said(self, known: Evidence, ctx: Context) -> Sequence[str]:
        if not known.sites and not known.declined:
            return ["lowrank found no Conv, Gemm or MatMul"]
        if ctx.env.calib is not None:
            return few_rows(known.sites)
        error = self.error or _ERROR_DATA_FREE
        return [
            "lowrank saw no calibration samples: it looked at the weights alone and takes "
            f"only ranks whose relative error is at most {error:g}; give --calib for more"
        ]
