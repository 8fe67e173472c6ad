"""Puts the pairs into the model and fits their last factors again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Model
from onnxslim.passes.lowrank.candidates import Candidate, decibels, relative_error
from onnxslim.passes.lowrank.emit import Pair, emit_together
from onnxslim.passes.lowrank.pivot_write import pivot_in_place
from onnxslim.passes.lowrank.schemes import Scheme
from onnxslim.passes.lowrank.settle import Settled, together
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.table_write import write_table
from onnxslim.passes.lowrank.timing import Speed
from onnxslim.passes.refit.refit import refit
from onnxslim.pipeline.base import Context, Declined, Layer


@dataclass
class Written:
    """What was done."""

    layers: list[Layer] = field(default_factory=list[Layer])
    declined: list[Declined] = field(default_factory=list[Declined])
    notes: list[str] = field(default_factory=list[str])
    refitted: int = 0


def write(
    model: Model,
    ctx: Context,
    editor: Editor,
    settled: Settled,
    refits: bool,
    activations: bool,
) -> Written:
    """Replace the layers in place; with samples, fit the last factors again where that helps."""
    reference = ir.snapshot(model)
    done = Written()
    names: list[str] = []
    later: list[tuple[list[str], Site, Scheme]] = []  # pivoted once they have been fitted again
    fitting = refits and ctx.env.calib is not None
    for decision in settled.decisions:
        candidates = dict(zip((s.name for s in decision.sites), decision.choice.parts, strict=True))
        for sites, pairs in together(decision):
            outputs = [str(site.layer.node.outputs[0].name) for site in sites]
            whole = [replace(made, direct=None) for made in pairs] if fitting else pairs
            try:
                emit_together(
                    editor, [site.layer for site in sites], [site.shape for site in sites], whole
                )
            except EditError as error:
                done.declined += [Declined(site.name, str(error)) for site in sites]
                continue
            names += outputs
            if fitting and pairs[0].scheme.pivoted:
                later.append((outputs, sites[0], pairs[0].scheme))
            done.layers += [
                _row(site, made, candidates[site.name], settled.speeds.get(site.name), len(sites))
                for site, made in zip(sites, pairs, strict=True)
            ]
    done.layers += [write_table(editor, table, part) for table, part in settled.tables]
    if done.layers:
        editor.remove_dead()
    if names and fitting:
        order = {str(v.name): n for n, node in enumerate(model.graph) for v in node.outputs}
        names.sort(key=lambda name: order.get(name, 0))
        fitted, why = refit(reference, model, names, ctx.env, activations=activations)
        done.refitted = 0 if fitted is None else fitted.layers
        done.notes.append(
            f"refit not kept: {why}" if fitted is None else
            f"{fitted.layers} second factors fitted again: error of the outputs on samples "
            f"held out {fitted.before:.3g} -> {fitted.after:.3g}"
        )  # fmt: skip
    if later:
        editor = Editor(model)  # the refit may have put back what was there before a stage
        for outputs, site, scheme in later:
            pivot_in_place(editor, model, outputs, site.shape, scheme)
        editor.remove_dead()
    return done


def _row(site: Site, made: Pair, taken: Candidate, speed: Speed | None, count: int) -> Layer:
    """What was done to a layer: ranks, cost, milliseconds measured and predicted, and the loss."""
    ranks = f"{made.rank}" if made.inner is None else f"{made.rank} and {made.inner.rank}"
    share = taken.macs / max(site.shape.macs, 1)
    said = [f"{made.scheme.label} rank {ranks}, {share:.2f} of the MACs"]
    if speed is not None:
        ms = f"{speed.layer_ms:.3g} -> {speed.pair_ms:.3g} ms"
        of = f" for {count} layers" if count > 1 else ""
        predicted = f" ({taken.ms:.3g} predicted)" if taken.ms else ""
        said.append(ms + of + predicted)
    if site.held is not None:
        said.append(f"{decibels(taken.loss):.1f} dB held out")
    return Layer(
        site.name, ir.op(site.layer.node), ", ".join(said), decibels(relative_error(site, made))
    )
