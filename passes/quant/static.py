"""Static quantization of a prepared model: know, choose, rewrite, audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.analyses.layer_ranges import LayerRanges, Ranges
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.analyses.nonfinite import first_nonfinite
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Model, Node
from onnxslim.passes.quant.audit.audit import Audit, audit
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.judge import FLOOR_DB, MOST, Judge
from onnxslim.passes.quant.choose.predicted import predicted
from onnxslim.passes.quant.choose.search import Alternatives, Search
from onnxslim.passes.quant.choose.sequential import improved
from onnxslim.passes.quant.choose.trial import Trial, attempt
from onnxslim.passes.quant.choose.widths import widened
from onnxslim.passes.quant.know.facts import Facts, Seen
from onnxslim.passes.quant.know.stated import stated_facts
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.protection import Limit, protected
from onnxslim.passes.quant.place.sized import Budget, within_size
from onnxslim.passes.quant.prepare.gates import GATED
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for
from onnxslim.passes.quant.rewrite.kept_float import FUSED_CONV
from onnxslim.passes.quant.rewrite.plan import Plan, tensors_to_see
from onnxslim.passes.quant.rewrite.regions import find_regions
from onnxslim.passes.quant.weights.layers import FEW_BITS
from onnxslim.pipeline.base import Context, Declined
from onnxslim.runtime.session import optimized_graph
from onnxslim.targets import Target

POSITIONS = 64
"""Rows per sample from which a layer's covariance is estimated."""

WIDEST = 4608
"""Features of a layer, up to which its covariance is collected (170 MB for each group): those of a
Conv with 512 channels and a kernel of 3 x 3. The weights of wider ones get the nearest integers."""

SIZED = "kept in float, as that was best of what keeps to the size asked for"

AUDITS = 2
"""Rounds of leaving in float what the runtime did not fuse."""


@dataclass(frozen=True)
class Goals:
    """What the search tries, and how far layers may be left in float."""

    alternatives: tuple[Alternatives, ...]
    limit: Limit
    timed: bool  # whether operators that are slower in int8 may stay in float, or weights be alone
    wide_share: float = 0.0  # of the weights, where these have few bits
    budget: Budget | None = None  # of bytes
    packs: bool = False  # whether weights of 4 bits can be stored as such
    sequential: bool = False  # whether layers are rounded for what the layers before leave
    sequential_few: bool = False  # the same where some weights have few bits


@dataclass(frozen=True)
class Static:
    """What was done: the plan that is in the graph now, if any, and how it was found."""

    plan: Plan | None
    choices: Choices
    db: float | None = None  # of the outputs on calibration samples
    audit: Audit | None = None
    trials: int = 0
    declined: tuple[Declined, ...] = ()
    predicted: Mapping[Node, float] = field(default_factory=dict[Node, float])  # dB by layer

    @property
    def ruined(self) -> bool:
        """Whether nothing was done because the outputs would have lost too much."""
        return self.plan is None and self.db is not None

    @property
    def reasons(self) -> tuple[Declined, ...]:
        """Why layers stayed in float; decisions first."""
        return self.declined if self.plan is None else (*self.declined, *self.plan.declined)


def quantize_static(
    model: Model, ctx: Context, choices: Choices, goals: Goals, known: Known
) -> Static:
    """Quantize a prepared model in place. `known` is of an earlier try, and is added to.

    Raises RuntimeUnavailable where calibration samples are given and the model cannot be run.
    """
    target = ctx.env.target
    facts, seen = facts_of(model, ctx, choices)
    db, trials, searched, last = None, 0, choices, None
    slower: Mapping[str, str] = {}
    if ctx.env.calib:
        judge = Judge(model, ctx.env.calib, ctx.env, seen)
        if (feed := judge.blind_sample()) is not None:
            source = first_nonfinite(model, feed, ctx.env.threads)
            return Static(None, choices, declined=tuple(_unjudged(model, source)))
        search = Search(model, target, facts, judge, known.scores)
        searched = search.best(choices, goals.alternatives, goals.limit.goal_db)
        if searched.bits <= FEW_BITS:
            searched = widened(search, searched, goals.wide_share)
        placement, limit = Placement(search, ctx, known), goals.limit
        if goals.budget is not None:
            searched = within_size(
                search, placement, searched, goals.budget, limit.goal_db, goals.timed, goals.packs
            )
            slower = dict.fromkeys(searched.excluded - choices.excluded - searched.alone, SIZED)
        else:
            if goals.timed:
                searched, slower = placement.faster(searched)
            searched = protected(search, placement, searched, limit, goals.timed)
        db, trials, last = search.score(searched), len(search.results), search.last
        few = searched.bits <= FEW_BITS or bool(searched.coarse)
        if goals.sequential or (goals.sequential_few and few):
            db, last = improved(search, ctx, searched), None
        if db < FLOOR_DB:
            return Static(None, searched, db, None, trials, _ruined(model, search, choices, db))
    trial, report = _audited(model, ctx, facts, searched, last)
    final = trial.choices
    errors = trial.by_layer(predicted(model, target, facts, final))
    _adopt(trial, model, ctx)
    declined = (*_kept(model, choices, searched, final, slower), *_inside(model))
    return Static(trial.plan, final, db, report, trials, declined, errors)


def facts_of(model: Model, ctx: Context, choices: Choices) -> tuple[Facts, Ranges | None]:
    """What is known of the tensors. Where nothing but their range is asked for, histograms are
    collected when first needed."""
    if not ctx.env.calib:
        return stated_facts(model), None
    excluded = {node for node in model.graph if node_id(node) in choices.excluded}
    regions = find_regions(model, ctx.env.target, excluded)
    names = tuple(dict.fromkeys(str(value.name) for value in tensors_to_see(regions)))
    layers = (layer for layer in regions.layers.values() if layer.kind != "deconv")
    narrow = (layer for layer in layers if layer.in_features <= WIDEST)
    taps = tuple(dict.fromkeys(layer.tap for layer in narrow))
    whole, later = LayerStats(tensors=names), LayerStats(taps=taps, positions=POSITIONS)
    seen = None
    if choices.method == "minmax":
        seen = ctx.analyses.get(LayerRanges(tensors=names, outputs=MOST))
    facts = Seen(
        seen or ctx.analyses.get(whole),
        lambda: ctx.analyses.get(whole),
        lambda: ctx.analyses.get(later).moments,
        lambda: getattr(ctx.analyses.cached(later), "moments", {}),
    )
    return facts, seen


def _audited(
    model: Model, ctx: Context, facts: Facts, choices: Choices, last: Trial | None
) -> tuple[Trial, Audit | None]:
    """Try until the runtime fuses all that is planned; the first trial is the `last` one of the
    search, if that is of the same choices."""
    target, report, trial = ctx.env.target, None, last
    for audits in reversed(range(AUDITS + 1)):
        if trial is None or trial.choices != choices:
            trial = attempt(model, ctx.env, facts, choices)
        if not target.local or not audits:
            break
        names = {str(n.name): GATED.get(ir.op(n), ir.op(n)) for n in _fused(trial.plan)}
        try:
            report = audit(_optimized(trial, target), names)
        except RuntimeUnavailable:
            break
        if not report.left:
            break
        left_float = {trial.ids[name] for name in report.left}
        choices = replace(choices, excluded=choices.excluded | left_float)
    assert trial is not None
    return trial, report


def _optimized(trial: Trial, target: Target) -> Model:
    """What ONNX Runtime makes of it; for another processor its sums were exact, unfused."""
    return trial.opened.graph if target.here else optimized_graph(trial.model)


def _adopt(trial: Trial, model: Model, ctx: Context) -> None:
    """Make the model what the trial is."""
    trial.adopt(model)
    if ctx.env.target.here and "opened" in vars(trial):
        ctx.env.opened.keep(model, trial.opened.session)


def _fused(plan: Plan) -> Iterator[Node]:
    """The nodes of a plan that should become kernels for integers."""
    rules = plan.regions.nodes.items()
    return (node for node, rule in rules if rule.role in ("linear", "compute"))


def _ruined(model: Model, search: Search, choices: Choices, db: float) -> tuple[Declined, ...]:
    """Every layer that could have been quantized, and those that could not anyway."""
    plan = plan_for(model, search.target, search.facts, choices)
    why = f"no choice that was tried keeps the outputs above {FLOOR_DB:g} dB ({db:.1f} dB at best)"
    return (*(Declined(node.name or node_id(node), why) for node in plan.layers), *plan.declined)


def _unjudged(model: Model, source: str | None) -> Iterator[Declined]:
    """Every layer, where the float model itself gives no numbers."""
    why = (
        "the float model gives nothing but NaN or infinity for a calibration sample; "
        f"the first value that holds such is '{source}'"
    )
    for node in model.graph:
        if ir.op(node) in ("Conv", "Gemm", "MatMul"):
            yield Declined(node.name or node_id(node), why)


def _inside(model: Model) -> tuple[Declined, ...]:
    """The layers of subgraphs and functions."""
    why = "it lies in a subgraph or function, where calibration sees no tensors"
    return tuple(
        Declined(node.name or node_id(node), why)
        for node in ir.nodes(model)
        if ir.op(node) in ("Conv", "Gemm", "MatMul") and node.graph is not model.graph
    )


def _kept(
    model: Model,
    given: Choices,
    searched: Choices,
    final: Choices,
    slower: Mapping[str, str],
) -> tuple[Declined, ...]:
    """The layers that stay in float by decision, and why."""
    lossy = searched.excluded - given.excluded - final.alone
    unfused = final.excluded - searched.excluded
    reasons = {
        **dict.fromkeys(given.excluded, "kept in float by the options ops and skip"),
        **dict.fromkeys(lossy, "kept in float: the outputs lose too much by it"),
        **dict.fromkeys(unfused, "the runtime made no int8 kernel of it"),
        **slower,
    }
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul", FUSED_CONV)
    linear = [node for node in model.graph if ir.op(node) in kinds]
    return tuple(
        Declined(node.name or node_id(node), reasons[node_id(node)])
        for node in linear
        if node_id(node) in reasons
    )
