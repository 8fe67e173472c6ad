"""What others make of the same layers at the same ranks: in the weights' norm, or a diagonal one.

*plain* is the SVD of the weight itself; *diagonal* scales its columns first by (E x_j^2)^(1/4), as
ASVD does by (E|x_j|)^(1/2) (Yuan et al. 2023, arXiv 2312.05821, alpha 0.5). Neither touches the
bias or fits anything again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.layer_stats import Moments
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.lowrank.candidates import pair
from onnxslim.passes.lowrank.emit import Pair, emit_together
from onnxslim.passes.lowrank.lowrank import Lowrank
from onnxslim.passes.lowrank.select import Decision
from onnxslim.passes.lowrank.settle import together, twin_of
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.table_write import write_table
from onnxslim.passes.lowrank.tables import twin_table
from onnxslim.passes.lowrank.units import joint_pairs
from onnxslim.pipeline.base import Context

ALPHA = 0.5


def plain(moments: Moments) -> Moments:
    """Inputs that are all alike."""
    size = moments.mean.shape[1]
    return _diagonal(moments, np.ones((len(moments.mean), size)))


def diagonal(moments: Moments) -> Moments:
    """Inputs that are independent of each other: columns are scaled by (E x^2)^(alpha / 2)."""
    power = np.diagonal(moments.second, axis1=1, axis2=2)
    return _diagonal(moments, np.maximum(power, 1e-12) ** ALPHA)


def _diagonal(moments: Moments, variance: Array) -> Moments:
    scatter = moments.n * variance[:, :, None] * np.eye(variance.shape[1])
    return Moments(moments.n, np.zeros_like(moments.mean), scatter)


BASELINES: dict[str, Callable[[Moments], Moments]] = {"plain SVD": plain, "diagonal": diagonal}


def factorized(model: Model, options: Lowrank, ctx: Context) -> dict[str, Model]:
    """The model with each baseline's factors in the place that `lowrank` chooses."""
    editor = Editor(model)
    fuse_batchnorm(editor)
    _, _, settled = options.plan(model, ctx)
    found: dict[str, Model] = {}
    start = ir.snapshot(model)
    for name, seen in BASELINES.items():
        copy = ir.snapshot(start)
        own = Editor(copy)
        for decision in settled.decisions:
            _write(own, copy, decision, seen)
        for table, part in settled.tables:  # cut like ours: the question is the layers
            write_table(own, twin_table(copy, table), part)
        found[name] = copy
        own.remove_dead()
    return found


def _write(
    editor: Editor, copy: Model, decision: Decision, seen: Callable[[Moments], Moments]
) -> None:
    parts = {s.name: p for s, p in zip(decision.sites, decision.choice.parts, strict=True)}
    for sites, _ in together(decision):
        others = [_site(site, seen) for site in sites]
        pairs: list[Pair]
        if decision.choice.joint is not None:
            pairs = joint_pairs(others, decision.choice.joint, parts[sites[0].name].rank)
        else:
            cut, rank = parts[sites[0].name].cut, parts[sites[0].name].rank
            assert cut is not None
            pairs = [pair(others[0], cut, rank)]
        twins = [twin_of(copy, site.layer) for site in sites]
        layers = [twin for twin in twins if twin is not None]
        emit_together(editor, layers, [site.shape for site in sites], pairs)


def _site(site: Site, seen: Callable[[Moments], Moments]) -> Site:
    moments = site.moments
    assert moments is not None
    return replace(site, fit=seen(moments), held=None)
