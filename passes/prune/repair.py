"""The cut made and repaired: fitted before it, compared with the masked original, fitted after."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.choose import Chosen
from onnxslim.passes.prune.compensate import compensate, fitted, sliced, spots
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.effort import REFITS
from onnxslim.passes.prune.evidence import Evidence
from onnxslim.passes.prune.safety import differs
from onnxslim.passes.refit.activation import activation
from onnxslim.passes.refit.refit import activation_work, refit
from onnxslim.passes.refit.spot import skips, spots_of
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
        lost = fitted(axes, removed)
        if repairs:
            compensate(editor, axes, removed, chosen.evidence, self.env.executor)
            own = spots(axes)
            known = dict.fromkeys([*own, *skips(editor.model, own)])
            sliced(self.reference, axes, removed, list(known))
        apart = self._cut(editor, axes, removed)
        if repairs and not apart:
            self._refit(editor.model, _affordable(editor.model, spots(axes), lost), chosen.evidence)
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
        known = activation_work(model, names) <= _FITS
        done, why = refit(
            self.reference, model, names, self.env, activations=known,
            in_turn=evidence.refits > REFITS[0], most=evidence.refits,
        )  # fmt: skip
        self.notes.append(
            f"refit not kept: {why}" if done is None else
            f"{done.layers} layers fitted again: error of the outputs on samples held out "
            f"{done.before:.3g} -> {done.after:.3g}"
        )  # fmt: skip


_FITS = 1e12  # multiply-accumulates for fits to what activations make: a dozen seconds
_BYTES = 4 << 30  # of moments of layers that are fitted again, an eighth of them at a time


def _affordable(model: Model, names: list[str], lost: list[str]) -> list[str]:
    """Layers that errors of earlier ones reach, of a large model those that lost columns. One that
    lost none and is followed by an activation is left: its inputs hardly tell what they lack."""
    sizes = {
        spot.output: 16 * (spot.layer.in_features + spot.layer.out_features) ** 2
        for spot in spots_of(model, names)
        if spot.output in lost or activation(spot.value) is None
    }
    small = [name for name in names if sizes.get(name, _BYTES) <= _BYTES // 8]
    if sum(sizes[name] for name in small) <= _BYTES:
        return small
    return [name for name in small if name in set(lost)]
