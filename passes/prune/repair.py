"""The cut made and repaired: fitted before it, compared with the masked original, fitted after."""

from __future__ import annotations

from dataclasses import replace

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.refit import refit
from onnxslim.passes.prune.choose import Chosen
from onnxslim.passes.prune.compensate import compensate, sliced, spots
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.evidence import Evidence
from onnxslim.passes.prune.mask import makers
from onnxslim.passes.prune.safety import differs
from onnxslim.pipeline.base import Environment


class Repair:
    """Writes choices into a model, one after the other. `reference` is the model before the first
    of them; of its layers' outputs it keeps what the model still has."""

    def __init__(self, reference: Model, env: Environment, *, repairs: bool) -> None:
        self.reference, self.env, self.repairs = reference, env, repairs
        self.notes: list[str] = []

    def write(self, editor: Editor, chosen: Chosen) -> str:
        """Compensate, cut and fit again; a reason where the cut must not stand."""
        axes, removed = chosen.axes, chosen.removed
        repairs = self.repairs and bool(chosen.evidence.fit)
        names = [name for name in spots(axes) if name in set(makers(editor.model))]
        if repairs:
            compensate(editor, axes, removed, chosen.evidence)
            sliced(self.reference, axes, removed, spots(axes))
        apart = self._cut(editor, axes, removed)
        if repairs and not apart:
            self._refit(editor.model, names, chosen.evidence)
        return apart

    def _cut(self, editor: Editor, axes: AxisMap, removed: Array) -> str:
        twin = ir.snapshot(editor.model)
        cut(editor, axes, removed)
        editor.remove_dead()
        try:
            return differs(twin, editor.model, axes, removed, self.env)
        except RuntimeUnavailable as error:
            self.notes.append(f"the cut was not compared with the masked original: {error}")
            return ""

    def _refit(self, model: Model, names: list[str], evidence: Evidence) -> None:
        env = replace(self.env, calib=evidence.ordered)
        done, why = refit(self.reference, model, names, env)
        self.notes.append(
            f"refit not kept: {why}" if done is None else
            f"{done.layers} layers fitted again: error of the outputs on samples held out "
            f"{done.before:.3g} -> {done.after:.3g}"
        )  # fmt: skip
