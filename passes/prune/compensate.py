"""The layers that read what goes, fitted in closed form to what they gave with it.

W_K + W_P C_PK C_KK^-1 and a bias that keeps the mean: the least squares of the output over what is
left (Frantar, Singh and Alistarh 2022, eq. 3; the covariance form of He et al. 2017).
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, Layer
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.evidence import Evidence, about, fitted_weight, roughly, shrunk
from onnxslim.passes.prune.mask import makers
from onnxslim.passes.refit.spot import spot_of
from onnxslim.runtime.blas import longest_first


def compensate(
    editor: Editor,
    axes: AxisMap,
    removed: Array,
    evidence: Evidence,
    executor: Executor | None = None,
) -> int:
    """Change the weights before the cut; columns that go become zero. How many layers changed.

    The editor may be that of a snapshot. Without an executor it is a trial, and one of several:
    it is fitted in float32, and the samples held out have no part in it, and so can judge it. A
    layer without a bias keeps the second moment instead of the covariance.
    """
    twins, tasks = makers(editor.model), list[tuple[Linear, Array]]()
    for layer in axes.trace.layers:
        own = linear(twins[str(layer.node.outputs[0].name)])
        if not isinstance(own, Linear) or own.groups > 1 or own.tap not in evidence.fit:
            continue
        lost = lost_columns(axes, layer, own, removed)
        if lost.any() and not lost.all():
            tasks.append((own, lost))

    def fit(task: tuple[Linear, Array]) -> _Fit:
        return _fit(*task, evidence, whole=executor is not None)

    fits = (
        list(map(fit, tasks)) if executor is None
        else longest_first(executor, fit, tasks, lambda task: task[0].in_features ** 3)
    )  # fmt: skip
    for (own, _), found in zip(tasks, fits, strict=True):
        _write(editor, own, found)
    return len(tasks)


def lost_columns(axes: AxisMap, layer: Layer, own: Linear, removed: Array) -> Array:
    """Flags of the columns of a layer's matrix that go."""
    if layer.columns is None:
        return np.zeros(own.in_features, np.bool_)
    gone = removed[axes.classes(layer.columns)]
    return np.repeat(gone, own.in_features // gone.size)


def give_biases(editor: Editor) -> None:
    """Dense Conv and Gemm without a bias get one of zeros, which a fit can change, and those that
    share one their own: the analysis is to know what a fit writes to."""
    for node in list(editor.model.graph):
        own = linear(node)
        if not isinstance(own, Linear) or own.bias_index is None or own.groups > 1:
            continue
        if own.bias is not None:
            if ir.constant(own.bias) is not None:
                editor.unshare(node, own.bias_index)
        else:
            zeros = own.from_bias(np.zeros(own.out_features))
            hint = f"{node.outputs[0].name}_bias"
            node.resize_inputs(3)
            node.replace_input_with(2, editor.initializer(editor.scope_of(node), hint, zeros))


def fitted(axes: AxisMap, removed: Array) -> list[str]:
    """The outputs of the layers that lose columns and can be fitted, in the order of the model."""
    names: list[str] = []
    for layer in axes.trace.layers:
        own = linear(layer.node)
        if isinstance(own, Linear) and lost_columns(axes, layer, own, removed).any():
            spot = spot_of(layer.node)
            if spot is not None:
                names.append(spot.output)
    return names


def spots(axes: AxisMap) -> list[str]:
    """The outputs of all layers that can be fitted."""
    found = (spot_of(layer.node) for layer in axes.trace.layers)
    return list(dict.fromkeys(spot.output for spot in found if spot is not None))


_Fit = tuple[Array, Array | None]
"""A weight [out, d], and what it adds to the constant after the layer, [out], where there is one.
"""


def _fit(own: Linear, lost: Array, evidence: Evidence, *, whole: bool) -> _Fit:
    spot = spot_of(own.node)
    biased = spot is not None and spot.offset() is not None
    fit = evidence.fit[own.tap]
    matrix = own.matrix()[0].astype(np.float64)
    centre = fit.mean[0] if biased else np.zeros(len(fit.mean[0]))
    share = evidence.share(str(own.node.outputs[0].name), own.tap, matrix, lost, centre)
    seen = evidence.whole(own.tap) if whole else fit
    centre = seen.mean[0] if biased else np.zeros_like(centre)
    spread = about(seen, centre) if whole else roughly(seen, centre)
    fitted = fitted_weight(matrix.astype(spread.dtype), shrunk(spread, share), lost)
    return fitted, (matrix - fitted) @ centre if biased else None


def _write(editor: Editor, own: Linear, found: _Fit) -> None:
    fitted, more = found
    spot = spot_of(own.node)
    weight = editor.unshare(own.node, own.weight_index)
    editor.replace_initializer(weight, own.from_matrix(fitted[None]))
    offset = None if spot is None else spot.offset()
    if spot is None or offset is None or more is None:
        return
    content = spot.content(offset + more)
    if content is not None and spot.holder is not None:
        editor.replace_initializer(editor.unshare(spot.holder, spot.index), content)


def sliced(reference: Model, axes: AxisMap, removed: Array, names: list[str]) -> None:
    """Let values of the reference be what the cut model has of them, under the same names. Those
    that the analysis does not know stay."""
    editor, twins = Editor(reference), makers(reference)
    kinds = {str(value.name): axes.axes(value) for value in axes.trace.axes}
    for name in (name for name in names if name in kinds and name in twins):
        value = next(v for v in twins[name].outputs if v.name == name)
        for axis, classes in enumerate(kinds[name]):
            if classes is not None and removed[classes].any():
                keep = np.flatnonzero(~removed[classes]).astype(np.int64)
                value.name = editor.name(f"{name}_whole")
                places = editor.initializer(editor.scope_of(twins[name]), "kept", keep)
                pick = editor.node(
                    "Gather", [value, places], outputs=[f"{name}_kept"], attributes={"axis": axis}
                )
                editor.insert_after(value.producer() or twins[name], [pick])
                value = pick.outputs[0]
                value.name = name
