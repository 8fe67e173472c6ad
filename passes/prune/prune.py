"""Structured pruning: channels, hidden units, heads and their dimensions leave the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from onnxslim import ir
from onnxslim.analyses.cost import Cost
from onnxslim.analyses.shapes import Shapes, one_feed
from onnxslim.errors import EditError, OptionError
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.prune.choose import GOALS, Chooser, Kind, Rules
from onnxslim.passes.prune.compensate import give_biases
from onnxslim.passes.prune.depth import drop_blocks
from onnxslim.passes.prune.repair import Repair
from onnxslim.passes.prune.report import Account
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option
from onnxslim.runtime.latency import interleaved_latency

_MILDER = 0.7  # of what was removed, after a check that failed
_LEAST = 0.05
_RATIO = 0.7


@dataclass(frozen=True, kw_only=True)
class Prune(Pass):
    """Units of the groups that the dimension analysis finds -> gone, from every tensor.

    The model is measured (`evidence`), the units of each group are ranked (`importance`), one
    choice is made for the whole model (`choose`, `budget`), the layers that read them are fitted
    (`compensate`), the cut is made and compared with the masked original (`cut`, `safety`), and
    the layers are fitted again to the original outputs where that helps (`repair`). With
    `schedule` all of that is done in steps.
    Constants and BatchNormalization are folded first.
    """

    name: ClassVar[str] = "prune"
    summary: ClassVar[str] = "remove channels, hidden units and attention heads, repair the rest"
    guarded: ClassVar[bool] = True
    inlines: ClassVar[bool] = True

    ratio: float | None = option(
        None, "MACs of the whole model after over before; without a goal 0.7, or half of what can "
        "go where that is not to be had", "0 to 1",
    )  # fmt: skip
    params: float | None = option(None, "parameters after over before, instead", "0 to 1")
    latency: float | None = option(
        None, "measured latency after over before, instead; the target must be this machine",
        "0 to 1",
    )  # fmt: skip
    share: float | None = option(None, "share of each group that goes, instead", "0 to 1")
    schedule: int = option(
        1, "steps, each with statistics of what the one before left", "1 or more"
    )
    depth: float = option(
        0.0, "residual blocks leave first, up to this relative error of the outputs", "0 to 1"
    )
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
        given = [key for key in GOALS if getattr(self, key) is not None]
        for key in given:
            value = getattr(self, key)
            if not 0 < value < 1:
                raise ValueError(f"{key}={value:g} given, expected a number between 0 and 1")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} given, expected one of them")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor:g} given, expected 0 or more and less than 1")
        if self.multiple < 0:
            raise ValueError(f"multiple={self.multiple} given, expected 0 or more")
        if not 0 <= self.depth < 1:
            raise ValueError(f"depth={self.depth:g} given, expected 0 or more and less than 1")
        if self.schedule < 1:
            raise ValueError(f"schedule={self.schedule} given, expected 1 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Prune in place.

        Raises:
            OptionError: nothing can be pruned, or the budget cannot be met; says why, or the
                nearest.
            RuntimeUnavailable: there are calibration samples and the model cannot be run, or a
                latency is asked for.
        """
        _refuse_quantized(model)
        before = ir.snapshot(model)
        _raise_opset(model)
        Fold().run(model, ctx)
        editor = Editor(model)
        fuse_batchnorm(editor)
        editor.remove_dead()
        ctx.analyses.invalidate(Aspect.ALL)
        reference = ir.snapshot(model)
        if self.compensate and ctx.env.calib is not None:
            give_biases(editor)
        repair = Repair(reference, ctx.env, repairs=self.compensate)
        account, notes = Account(), list[str]()
        try:
            apart = self._steps(model, ctx, repair, account, notes)
        except OptionError:
            ir.restore(model, before)
            raise
        notes += repair.notes
        ctx.analyses.invalidate(Aspect.ALL)
        if apart:
            ir.restore(model, before)
            return PassResult(declined=(Declined("whole model", apart),), notes=tuple(notes))
        return PassResult(
            changed=Aspect.ALL,
            stats=account.stats(self._goal[0]),
            declined=account.declined(),
            layers=account.rows(),
            notes=tuple(notes),
        )

    def _steps(
        self, model: Model, ctx: Context, repair: Repair, account: Account, notes: list[str]
    ) -> str:
        """Blocks, then all steps of the schedule; the reason where one must not stand."""
        goal, value = self._goal
        if self.depth:
            notes += self._shorten(model, ctx, repair.reference, account)
        for wanted in self._schedule(value):
            base = ir.snapshot(model) if goal == "latency" else model
            budget = wanted if goal == "share" else wanted / account.left
            if budget >= 1:
                continue  # the step before went as far
            rules = Rules(
                goal, budget, self._asked, self.only, self.skip, self.importance,
                self.compensate, self.multiple, self.floor, self.width,
            )  # fmt: skip
            chosen = Chooser(rules, model, ctx, account.sizes).choose(base)
            notes += [note for note in chosen.notes if note not in notes]
            if not chosen.removed.any():
                continue
            apart = repair.write(Editor(model), chosen)
            if apart:
                return apart
            account.add(chosen)
            ctx.analyses.invalidate(Aspect.ALL)
        return ""

    def _shorten(self, model: Model, ctx: Context, reference: Model, account: Account) -> list[str]:
        """Let residual blocks go; what that leaves of the goal counts."""
        if ctx.env.calib is None:
            return ["depth needs calibration samples: no residual block left"]
        before = ctx.analyses.get(Cost())
        account.blocks = drop_blocks(
            reference, model, ctx.analyses.get(Shapes()), ctx.env, self.depth
        )
        ctx.analyses.invalidate(Aspect.ALL)
        if not account.blocks:
            return [f"no residual block can leave within depth={self.depth:g}"]
        after = ctx.analyses.get(Cost())
        account.macs = account.left = after.total_macs / max(before.total_macs, 1)
        if self._goal[0] == "params":
            account.left = after.weight_bytes / max(before.weight_bytes, 1)
        if self._goal[0] == "latency":
            feed = one_feed(reference, ctx.env)
            account.left = interleaved_latency([reference, model], feed, ctx.env.threads).ratio()
        return []

    @property
    def _asked(self) -> bool:
        return any(getattr(self, key) is not None for key in GOALS)

    @property
    def _goal(self) -> tuple[str, float]:
        found = ((key, getattr(self, key)) for key in GOALS)
        return next(((key, value) for key, value in found if value is not None), ("ratio", _RATIO))

    def _schedule(self, value: float) -> Iterator[float]:
        """What stays of the model after each step; of `share`, what goes of what is left."""
        for step in range(1, self.schedule + 1):
            if self._goal[0] == "share":
                yield 1 - (1 - value) ** (1 / self.schedule)
            else:
                yield 1 - (1 - value) * step / self.schedule

    def stricter(self, result: PassResult) -> Pass | None:
        """Remove less, until it is hardly anything."""
        goal, value = self._goal
        if not self._asked:  # less may have gone
            value = max(value, float(result.stats.get("macs_ratio", value)))
        gone = _MILDER * (value if goal == "share" else 1 - value)
        if gone < _LEAST:
            return None
        milder: dict[str, Any] = {goal: gone if goal == "share" else 1 - gone}
        return replace(self, **milder)


def _raise_opset(model: Model) -> None:
    try:
        ir.raise_opset(model, _MASKS_SINCE)
    except EditError as error:
        raise OptionError(f"prune: {error}; export the model with a later opset") from error


_MASKS_SINCE = 9  # Where, by which units are masked
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
              "MatMulInteger", "com.microsoft::MatMulNBits")  # fmt: skip


def _refuse_quantized(model: Model) -> None:
    for node in ir.nodes(model):
        if ir.op(node) in _QUANTIZED:
            raise OptionError(
                f"prune: the model is quantized already ({ir.op(node)} '{ir.label(node)}'); prune "
                "the float model and quantize the result: --passes prune,quant"
            )
