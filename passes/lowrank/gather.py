"""All that a choice rests on, measured before anything is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from onnxslim import ir
from onnxslim.analyses.cost import Cost
from onnxslim.ir import Array, Model
from onnxslim.passes.lowrank.alone import INPUT, OUTPUT, changed
from onnxslim.passes.lowrank.candidates import (
    Cut,
    cuts,
    effective,
    pair,
    relative_error,
    rows_wanted,
)
from onnxslim.passes.lowrank.gain import DISTURBANCE, Probe, gains
from onnxslim.passes.lowrank.schemes import Scheme
from onnxslim.passes.lowrank.survey import Site, survey
from onnxslim.passes.lowrank.tables import Table, find_tables
from onnxslim.passes.lowrank.timing import Clock, Times
from onnxslim.passes.lowrank.units import Joint, groups, joint_cuts
from onnxslim.pipeline.base import Context, Declined
from onnxslim.runtime.blas import side_by_side
from onnxslim.runtime.session import open_session

if TYPE_CHECKING:
    from onnxslim.passes.lowrank.lowrank import Lowrank

POWERS = (0.5, 1.0)
"""Of the gains that may weigh the losses of layers; which does is tried, or the last is taken."""

S = TypeVar("S")
T = TypeVar("T")
Members = tuple[int, ...]


@dataclass
class Evidence:
    """What is known of a model: its layers, their cuts, what they cost and what their loss means.

    `units` are the layers, by number, that are chosen as one; `joints` their common cuts. `times`
    is by members: of every layer alone, and of the units that have a common cut.
    """

    sites: list[Site] = field(default_factory=list[Site])
    declined: list[Declined] = field(default_factory=list[Declined])
    cuts: list[list[Cut]] = field(default_factory=list[list[Cut]])
    found: list[float] = field(default_factory=list[float])  # gains of layers, then of tables
    weights: list[float] = field(default_factory=list[float])
    units: list[Members] = field(default_factory=list[Members])
    joints: list[list[Joint]] = field(default_factory=list[list[Joint]])
    tables: list[Table] = field(default_factory=list[Table])
    table_gains: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    times: dict[Members, Times | None] = field(default_factory=dict[Members, "Times | None"])
    totals: dict[str, float] = field(default_factory=dict[str, float])  # of the whole model

    def weigh(self, power: float) -> None:
        """Count the losses of layers and tables by a power of their gains."""
        powers = [gain**power for gain in self.found]
        self.weights, rest = powers[: len(self.sites)], powers[len(self.sites) :]
        self.table_gains = list(zip(rest[::2], rest[1::2], strict=True))

    def members(self, unit: Sequence[int]) -> list[Site]:
        """The layers of a unit."""
        return [self.sites[i] for i in unit]

    def gains(self, unit: Sequence[int]) -> list[float]:
        """The weights of their losses."""
        return [self.weights[i] for i in unit]


def gather(options: Lowrank, model: Model, ctx: Context, clock: Clock) -> Evidence:
    """Measure everything.

    Raises:
        RuntimeUnavailable: there are calibration samples and the model cannot be run.
    """
    known = Evidence()
    known.totals["macs"] = float(ctx.analyses.get(Cost()).total_macs)
    known.totals["params"] = float(parameters(model))
    known.sites, known.declined = survey(model, ctx, options.skip, options.min_dim)
    known.cuts = each(
        ctx, "factorizing layers",
        lambda site: cuts(site, options.scheme, _step(site, options, ctx)), known.sites,
    )  # fmt: skip
    unit, share = options.budget
    if share is not None and unit != "ms":
        found, stays = find_tables(model, ctx, options.skip, ctx.env.target.rank_multiple)
        known.tables = [t for t in found if unit == "params" or t.head is not None]
        known.declined += stays if unit == "params" else []
    _weigh(known, options, model, ctx)
    known.units = groups(known.sites)
    known.joints = each(
        ctx, "factorizing layers together",
        lambda unit: _joints(known, unit, options, ctx), known.units,
    )  # fmt: skip
    if options.measure:
        _time(known, ctx, clock)
    return known


def each(ctx: Context, what: str, task: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Through the executor, with progress."""
    results: list[T] = []
    for result in side_by_side(ctx.env.executor, task, items):
        results.append(result)
        ctx.env.progress(what, len(results), len(items))
    return results


def parameters(model: Model) -> int:
    """Numbers in the float constants of a model; a shared one counts once."""
    found = {id(tensor): tensor for tensor in ir.tensors(model)}
    return sum(int(t.size) for t in found.values() if t.dtype.is_floating_point())


def few_rows(sites: Sequence[Site]) -> list[str]:
    """A sentence where layers saw fewer inputs than they have features."""
    few = [(site.name, n) for site in sites if (n := rows_wanted(site))]
    if not few:
        return []
    name, most = max(few, key=lambda item: item[1])
    who = "1 layer" if len(few) == 1 else f"{len(few)} layers"
    has, was = ("it has", "was") if len(few) == 1 else ("they have", "were")
    return [
        f"{who} saw fewer inputs than {has} features and {was} damped; {name} needs {most} more "
        "rows"
    ]


def _step(site: Site, options: Lowrank, ctx: Context) -> int:
    target = ctx.env.target
    own = target.conv_multiple if site.layer.kind == "conv" else target.rank_multiple
    return options.multiple or own


def _joints(known: Evidence, unit: Members, options: Lowrank, ctx: Context) -> list[Joint]:
    if len(unit) < 2 or options.scheme not in ("auto", "joint"):
        return []
    sites = known.members(unit)
    return joint_cuts(sites, known.gains(unit), _step(sites[0], options, ctx))


def _weigh(known: Evidence, options: Lowrank, model: Model, ctx: Context) -> None:
    """How much a layer's relative loss counts: by the root of its measured gain to begin with."""
    known.found = [1.0] * (len(known.sites) + 2 * len(known.tables))
    known.weigh(POWERS[0])
    if options.budget[1] is None or ctx.env.calib is None:
        return
    probes = each(
        ctx,
        "disturbing layers",
        lambda at: _probe(model, known.sites[at], known.cuts[at]),
        range(len(known.sites)),
    )
    of_tables = [probe for table in known.tables for probe in table.probes()]
    known.found = gains(model, [*probes, *of_tables], int(known.totals["macs"]), ctx.env)
    known.weigh(POWERS[0])


def _probe(model: Model, site: Site, found: Sequence[Cut]) -> Probe | None:
    """The layer's own truncation, at the rank whose loss is next to the one wanted; none in a graph
    inside of a node, where nothing can be added from outside."""
    if ir.graph_of(site.layer.node.outputs[0]) is not model.graph:
        return None
    losses = [
        (abs(loss / DISTURBANCE - 1), n, rank)
        for n, cut in enumerate(found)
        for rank, loss in cut.loss.items()
        if loss > 0
    ]
    moments = site.moments
    if not losses or moments is None:
        return None
    _, number, rank = min(losses)
    made = pair(site, found[number], rank)
    matrix = site.layer.matrix()
    session = open_session(changed(site, effective(site.shape, made) - matrix, made.shift))

    def noise(x: Array) -> Array:
        return session.run({INPUT: x})[OUTPUT]

    loss = relative_error(site, made)
    return Probe(str(site.layer.input.name), str(site.layer.node.outputs[0].name), noise, loss)


def _time(known: Evidence, ctx: Context, clock: Clock) -> None:
    """What every layer takes, and every unit that may be cut together, with their cuts."""
    wanted: list[tuple[Members, Mapping[Scheme, list[int]]]] = [
        ((i,), {cut.scheme: list(cut.loss) for cut in found}) for i, found in enumerate(known.cuts)
    ]
    wanted += [
        (unit, {joint.scheme: list(joint.cuts[0].loss) for joint in joints})
        for unit, joints in zip(known.units, known.joints, strict=True)
        if joints
    ]
    for done, (members, ways) in enumerate(wanted):
        ctx.env.progress("timing layers", done, len(wanted))
        if ways:
            known.times[members] = clock.times(known.members(members), ways)
