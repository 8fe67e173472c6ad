"""The second factors fitted again to what the original layers give, on the inputs they now get.

Minimises E|y - H z - b|^2 over H and b with y the original layer's output and z what reaches the
second factor in the compressed model: the asymmetric step of Zhang et al. 2015 (arXiv 1505.06798,
section 3.3), a ridge regression towards the H at hand. A fit is kept where the error on the
samples held out falls, and all of them only where that of the model's outputs falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap, Window, columns, row_count
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.moments import Moments, MomentsBuilder
from onnxslim.ir import Array, Editor, Model, Node
from onnxslim.passes.lowrank.gain import distance
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_session

_STAGES = 8  # runs of the samples at most: layers of one stage are fitted from one run
_ROWS = 128  # of each layer and sample
_RIDGE = 1e-3  # of the mean variance of z
_HELD_OUT = 5  # every fifth sample


@dataclass(frozen=True)
class Fitted:
    """What the refit did: layers kept, and the outputs' error held out, before and after."""

    layers: int
    before: float
    after: float


def refit(
    original: Model, model: Model, names: Sequence[str], env: Environment
) -> tuple[Fitted | None, str]:
    """Fit the second factors of the layers with these outputs (in order), in place.

    Returns what was done, or None with the reason why nothing was kept.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of the models.
    """
    if env.calib is None or len(env.calib) < 2 * _HELD_OUT:
        return None, f"a refit needs at least {2 * _HELD_OUT} calibration samples"
    held_out = env.calib.take(range(_HELD_OUT - 1, len(env.calib), _HELD_OUT))
    before = distance(original, model, held_out, env.threads)
    if before is None:
        return None, "no output of the model is a float to compare"
    start = ir.snapshot(model)
    layers = 0
    stages = np.array_split(np.array(names, dtype=object), min(_STAGES, len(names)))
    for number, stage in enumerate(stages):
        env.progress("refit", number, len(stages))
        layers += _stage(original, model, [str(name) for name in stage], env)
    after = distance(original, model, held_out, env.threads)
    if after is None or not after < before:
        ir.restore(model, start)
        return None, f"held-out error of the outputs {before:.3g} would have become {after:.3g}"
    return Fitted(layers, before, after), ""


def _stage(original: Model, model: Model, names: list[str], env: Environment) -> int:
    """Fit the layers of one stage from one run of the samples; how many were kept."""
    assert env.calib is not None
    nodes = _producers(model)
    pairs = {name: _second(nodes.get(name)) for name in names}
    layers = {name: layer for name, layer in pairs.items() if layer is not None}
    found = _collect(original, model, layers, env.calib, env)
    editor = Editor(model)
    return sum(_fit(editor, layers[name], *moments) for name, moments in found.items())


def _producers(model: Model) -> dict[str, Node]:
    return {str(v.name): node for node in model.graph for v in node.outputs}


def _second(node: Node | None) -> Linear | None:
    """The second factor whose bias a fit can move."""
    layer = None if node is None else linear(node)
    if not isinstance(layer, Linear) or layer.bias_vector() is None:
        return None
    return layer if layer.bias is not None else None


def _collect(
    original: Model,
    model: Model,
    layers: dict[str, Linear],
    samples: Samples,
    env: Environment,
) -> dict[str, tuple[Moments, Moments]]:
    """Joint moments of (z, y) by layer: of the samples to fit and of those held out."""
    inputs = {name: layer.tap.tensor for name, layer in layers.items()}
    old = open_session(original, extra_outputs=list(inputs), threads=env.threads)
    new = open_session(model, extra_outputs=list(inputs.values()), threads=env.threads)
    builders: dict[str, tuple[MomentsBuilder, MomentsBuilder]] = {}
    rng = np.random.default_rng(env.seed)
    for number, feed in enumerate(samples):
        wanted = old.run(feed, list(inputs))
        given = new.run(feed, list(inputs.values()))
        for name, layer in layers.items():
            rows = _rows(layer, given[inputs[name]], wanted[name], rng)
            if name not in builders:
                sizes = int(rows.shape[0]), int(rows.shape[2])
                builders[name] = MomentsBuilder(*sizes), MomentsBuilder(*sizes)
            builders[name][int(number % _HELD_OUT == _HELD_OUT - 1)].add(rows)
    return {name: (a.result(), b.result()) for name, (a, b) in builders.items()}


def _rows(layer: Linear, z: Array, y: Array, rng: np.random.Generator) -> Array:
    """Some rows of (z, y) side by side, [groups, n, d + out]."""
    count = row_count(layer.tap, z.shape)
    chosen = np.sort(rng.choice(count, min(count, _ROWS), replace=False))
    rank = y.ndim - 2
    ones = (1,) * rank
    window = None if layer.tap.window is None else Window(ones, ones, ones, (0,) * 2 * rank)
    seen = Tap("", window, layer.groups)
    return np.concatenate([columns(z, layer.tap, chosen), columns(y, seen, chosen)], axis=2)


def _fit(editor: Editor, layer: Linear, fit: Moments, held_out: Moments) -> bool:
    """Whether the layer was changed: the new factor errs less on the samples held out."""
    matrix = layer.matrix().astype(np.float64)
    vector = layer.bias_vector()
    if vector is None or layer.bias is None or not np.isfinite(fit.scatter).all():
        return False
    bias = vector.reshape(layer.groups, -1)
    better, shifted = regression(matrix, fit)
    if not joint_error(better, shifted, held_out) < joint_error(matrix, bias, held_out):
        return False
    weight = editor.unshare(layer.node, layer.weight_index)
    content = layer.from_matrix(better)
    editor.replace_initializer(weight, ir.Tensor(content, name=weight.name))
    added = editor.unshare(layer.node, 2)
    shaped = layer.from_bias(shifted.ravel())
    editor.replace_initializer(added, ir.Tensor(shaped, name=added.name))
    return True


def regression(matrix: Array, joint: Moments) -> tuple[Array, Array]:
    """H and b of least squares from the moments of (z, y), drawn towards the H given.

    `matrix` is [G, out, d]; the moments have d + out features. Returns [G, out, d] and [G, out].
    """
    size = matrix.shape[2]
    covariance = joint.covariance()
    gram, cross = covariance[:, :size, :size], covariance[:, :size, size:]
    level = np.trace(gram, axis1=1, axis2=2) / size
    ridge = np.where(level > 0, _RIDGE * level, 1.0)[:, None, None] * np.eye(size)
    wanted = cross - gram @ np.swapaxes(matrix, 1, 2)
    better = matrix + np.swapaxes(np.linalg.solve(gram + ridge, wanted), 1, 2)
    mean = joint.mean
    return better, mean[:, size:] - (better @ mean[:, :size, None])[..., 0]


def joint_error(matrix: Array, bias: Array, joint: Moments) -> float:
    """E|y - H z - b|^2 over the rows that the moments of (z, y) were taken from."""
    groups, out, _ = matrix.shape
    eye = np.broadcast_to(np.eye(out), (groups, out, out))
    residual = np.concatenate([-matrix, eye], axis=2)
    spread = float(np.sum((residual @ joint.covariance()) * residual))
    shift = (residual @ joint.mean[:, :, None])[..., 0] - bias
    return spread + float(np.square(shift).sum())
