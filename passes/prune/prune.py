"""Structured pruning: channels, hidden units, heads and their dimensions leave the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import Axes, AxisMap, Group
from onnxslim.analyses.axes.groups import CHANNELS, CONV_GROUPS, HEADS, HIDDEN, QK, VO
from onnxslim.analyses.axes.site import STATISTIC
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.cost import Cost
from onnxslim.analyses.layer_stats import LayerStats, Moments
from onnxslim.errors import OptionError, RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.lowrank.refit import refit
from onnxslim.passes.prune.budget import Choice, Macs, by_macs, by_share, removal, steps
from onnxslim.passes.prune.compensate import compensate, fitted, give_biases, sliced
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.importance import Ranking, rank, taps
from onnxslim.passes.prune.safety import differs
from onnxslim.passes.prune.score import ROWS_PER_FEATURE
from onnxslim.passes.prune.trial import gains
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer, Pass, PassResult, option

Kind = Literal["channels", "hidden", "heads", "groups", "qk", "vo"]
KINDS: Mapping[str, str] = {
    "channels": CHANNELS,
    "hidden": HIDDEN,
    "heads": HEADS,
    "groups": CONV_GROUPS,
    "qk": QK,
    "vo": VO,
}
_MILDER = 0.7  # of what was removed, after a check that failed
_LEAST = 0.05
_RATIO = 0.7


FEW_SAMPLES = 256
"""Calibration samples below which the user is told how little they say."""


@dataclass(frozen=True, kw_only=True)
class Prune(Pass):
    """Units of the groups that the dimension analysis finds -> gone, from every tensor.

    The model is measured once (`layer_stats`), the units of each group are ranked (`importance`),
    one choice is made for the whole model (`budget`), the layers that read them are fitted
    (`compensate`), the cut is made and compared with the masked original (`cut`, `safety`), and
    the layers are fitted again to the original outputs where that helps (`refit`).
    Constants and BatchNormalization are folded first.
    """

    name: ClassVar[str] = "prune"
    summary: ClassVar[str] = "remove channels, hidden units and attention heads, repair the rest"
    guarded: ClassVar[bool] = True

    ratio: float | None = option(
        None, "MACs of the whole model after over before; 0.7 without share", "0 to 1"
    )
    share: float | None = option(None, "share of each group that goes, instead of ratio", "0 to 1")
    only: tuple[Kind, ...] = option((), "kinds of units; all where none is named")
    importance: Literal["loss", "wanda", "variance", "magnitude"] = option(
        "loss", "what units are ranked by; without data magnitude"
    )
    compensate: bool = option(True, "fit the layers that read what is gone")
    multiple: int = option(0, "units that stay are multiples of it; 0 asks the target", "0 or more")
    floor: float = option(0.2, "share of each group that always stays", "0 to 1")
    width: bool = option(
        False, "what is normalized over may go too: the norm is then over what stays"
    )
    skip: tuple[str, ...] = option((), "layers whose outputs stay (names, * and ?)")

    def __post_init__(self) -> None:
        """Check ranges."""
        for key in ("ratio", "share"):
            value = getattr(self, key)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{key}={value:g} given, expected a number between 0 and 1")
        if self.ratio is not None and self.share is not None:
            raise ValueError("ratio and share given, expected one of them")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor:g} given, expected 0 or more and less than 1")
        if self.multiple < 0:
            raise ValueError(f"multiple={self.multiple} given, expected 0 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Prune in place.

        Raises:
            OptionError: nothing can be pruned, or `ratio` cannot be met; says why, or the nearest.
            RuntimeUnavailable: there are calibration samples and the model cannot be run.
        """
        _refuse_quantized(model)
        before = ir.snapshot(model)
        Fold().run(model, ctx)
        editor = Editor(model)
        fuse_batchnorm(editor)
        editor.remove_dead()
        ctx.analyses.invalidate(Aspect.ALL)
        original = ir.snapshot(model)
        if self.compensate and ctx.env.calib is not None:
            give_biases(editor)
        run = _Run(self, model, ctx, editor)
        try:
            run.choose()
        except OptionError:
            ir.restore(model, before)
            raise
        apart = run.write(original)
        if apart:
            ir.restore(model, before)
            ctx.analyses.invalidate(Aspect.ALL)
            return PassResult(declined=(Declined("whole model", apart),), notes=tuple(run.notes))
        ctx.analyses.invalidate(Aspect.ALL)
        return PassResult(
            changed=Aspect.ALL,
            stats=run.stats(),
            declined=run.declined(),
            layers=run.rows(),
            notes=tuple(run.notes),
        )

    def stricter(self, result: PassResult) -> Pass | None:
        """Remove less, until it is hardly anything."""
        if self.share is not None:
            share = self.share * _MILDER
            return replace(self, share=share) if share >= _LEAST else None
        gone = (1 - (self.ratio or _RATIO)) * _MILDER
        return replace(self, ratio=1 - gone) if gone >= _LEAST else None


@dataclass
class _Run:
    """One run of the pass: what is known, chosen and said so far."""

    options: Prune
    model: Model
    ctx: Context
    editor: Editor
    notes: list[str] = field(default_factory=list[str])
    choices: list[Choice] = field(default_factory=list[Choice])
    taken: list[int] = field(default_factory=list[int])
    left: float = 1.0

    def choose(self) -> None:
        """Decide what goes."""
        self.axes: AxisMap = self.ctx.analyses.get(Axes(width=self.options.width))
        self.macs = Macs(self.axes, self.ctx.analyses.get(Cost()).counts)
        groups = [group for group in self.axes.groups if self._wanted(group)]
        if not groups:
            raise OptionError(self._nothing())
        self.moments = self._measure(groups)
        self.choices = [self._choice(group) for group in groups]
        total = self.macs.total(self.axes.nothing())
        if self.options.share is not None:
            self.taken = by_share(self.choices, self.options.share)
        else:
            self._by_ratio(total)
        self.removed: Array = removal(self.axes, self.choices, self.taken)
        if not self.removed.any():
            raise OptionError("prune: every group is too small for its multiple or floor to shrink")
        self.left = self.macs.total(self.removed) / max(total, 1)

    def _by_ratio(self, total: float) -> None:
        ratio = self.options.ratio or _RATIO
        if self.moments:
            found = gains(
                self.model,
                self.axes,
                self.choices,
                self.moments,
                self.ctx.env,
                self.options.compensate,
            )
            self.choices = [replace(c, gain=g) for c, g in zip(self.choices, found, strict=True)]
        self.taken, left = by_macs(self.axes, self.macs, self.choices, ratio * total)
        if left > ratio * total:
            nearest = -(-left / total * 1000 // 1) / 1000
            raise OptionError(
                f"prune: ratio={ratio:g} of the MACs cannot be met: what can go leaves "
                f"{nearest:.3f}; give ratio={nearest:.3f} or more, or a lower floor"
            )

    def _wanted(self, group: Group) -> bool:
        only = {KINDS[kind] for kind in self.options.only}
        named = any(
            fnmatchcase(ir.label(layer.node), pattern)
            for layer in group.rows
            for pattern in self.options.skip
        )
        return not named and (not only or group.kind in only)

    def _nothing(self) -> str:
        stuck = self.axes.stuck[:3]
        if self.axes.groups or not stuck:
            kinds = ", ".join(sorted({group.kind for group in self.axes.groups})) or "no layers"
            return f"prune: nothing to prune with these options; the model has {kinds}"
        reasons = "; ".join(f"{s.node}: {s.reason}" for s in stuck)
        hint = "; width=true lets it go" if any(STATISTIC in s.reason for s in stuck) else ""
        return f"prune: nothing of the model can be pruned: {reasons}{hint}"

    def _measure(self, groups: list[Group]) -> Mapping[Tap, Moments]:
        if self.ctx.env.calib is None:
            self.notes.append(
                "prune saw no calibration samples: units are ranked by the norms of their weights "
                "and nothing is repaired; give --calib for both"
            )
            return {}
        found = self.ctx.analyses.get(LayerStats(taps=taps(self.axes, groups))).moments
        sound = {tap: seen for tap, seen in found.items() if np.isfinite(seen.scatter).all()}
        if len(self.ctx.env.calib) < FEW_SAMPLES:
            self.notes.append(
                f"prune saw {len(self.ctx.env.calib)} calibration samples: what they do not excite "
                "goes first and may matter to others, and samples of the same origin do not show "
                f"that; give {FEW_SAMPLES} varied ones or more, and --eval of another origin"
            )
        few = [(seen.n, seen.mean.shape[1]) for seen in sound.values()]
        short = max((ROWS_PER_FEATURE * d - n for n, d in few), default=0)
        if short > 0:
            self.notes.append(
                f"{sum(ROWS_PER_FEATURE * d > n for n, d in few)} layers saw few inputs for their "
                f"features and were damped more; {short} more rows are needed"
            )
        return sound

    def _choice(self, group: Group) -> Choice:
        own = self.ctx.env.target
        multiples = {CHANNELS: own.conv_multiple, HIDDEN: own.rank_multiple}
        multiple = self.options.multiple or multiples.get(group.kind, 1)
        possible = steps(group.size, multiple, self.options.floor)
        ranking: Ranking = rank(
            self.axes, group, self.moments, self.options.importance, possible[-1]
        )
        return Choice(ranking, possible)

    def write(self, original: Model) -> str:
        """Compensate, cut and fit again; a reason where the cut must not stand."""
        repairs = self.options.compensate and bool(self.moments)
        names = fitted(self.axes, self.removed) if repairs else []
        if repairs:
            compensate(self.editor, self.axes, self.removed, self.moments)
        twin = ir.snapshot(self.model)
        cut(self.editor, self.axes, self.removed)
        self.editor.remove_dead()
        try:
            apart = differs(twin, self.model, self.axes, self.removed, self.ctx.env)
        except RuntimeUnavailable as error:
            self.notes.append(f"the cut was not compared with the masked original: {error}")
            apart = ""
        if names and not apart:
            self._refit(original, names)
        return apart

    def _refit(self, original: Model, names: list[str]) -> None:
        reference = ir.snapshot(original)
        sliced(reference, self.axes, self.removed, names)
        done, why = refit(reference, self.model, names, self.ctx.env)
        self.notes.append(
            f"refit not kept: {why}" if done is None else
            f"{done.layers} layers fitted again: error of the outputs on samples held out "
            f"{done.before:.3g} -> {done.after:.3g}"
        )  # fmt: skip

    def stats(self) -> dict[str, int | float | str]:
        """Figures for the report."""
        return {
            "groups": sum(at > 0 for at in self.taken),
            "units": sum(c.steps[at] for c, at in zip(self.choices, self.taken, strict=True)),
            "macs_ratio": round(self.left, 4),
        }

    def rows(self) -> tuple[Layer, ...]:
        """One row for each group that lost units."""
        return tuple(
            Layer(
                choice.ranking.group.name,
                ir.op(choice.ranking.group.rows[0].node),
                f"{choice.ranking.group.size - choice.steps[at]} of {choice.ranking.group.size} "
                f"{choice.ranking.group.kind} stay",
            )
            for choice, at in zip(self.choices, self.taken, strict=True)
            if at
        )

    def declined(self) -> tuple[Declined, ...]:
        """What cannot be pruned and why, and groups that the budget left alone."""
        stuck = [
            Declined(s.node, f"{s.share:.0%} of its outputs stay: {s.reason}")
            for s in self.axes.stuck
        ]
        left = [
            Declined(choice.ranking.group.name, f"all {choice.ranking.group.kind} stay: {reason}")
            for choice, at in zip(self.choices, self.taken, strict=True)
            if (reason := _left_alone(choice, at))
        ]
        return (*stuck, *left)


def _left_alone(choice: Choice, at: int) -> str:
    if at:
        return ""
    if len(choice.steps) == 1:
        return "there are too few of them for the multiple and the floor"
    return "the budget is met without it"


_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
              "MatMulInteger", "com.microsoft::MatMulNBits")  # fmt: skip


def _refuse_quantized(model: Model) -> None:
    for node in ir.nodes(model):
        if ir.op(node) in _QUANTIZED:
            raise OptionError(
                f"prune: the model is quantized already ({ir.op(node)} '{ir.label(node)}'); prune "
                "the float model and quantize the result: --passes prune,quant"
            )
