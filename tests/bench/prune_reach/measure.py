"""One model: what 30 % of every group leaves of it, and whether that equals the masked original."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, axis_map
from onnxslim.analyses.cost import cost_table
from onnxslim.analyses.seen import observed_shapes
from onnxslim.analyses.shapes import ShapeTable
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.prune import amount
from onnxslim.passes.prune.budget import Choice, by_share, removal, steps, within
from onnxslim.passes.prune.choose import multiples
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.evidence import Evidence
from onnxslim.passes.prune.importance import rank
from onnxslim.passes.prune.mask import mask
from onnxslim.passes.prune.prune import Prune
from onnxslim.passes.prune.safety import TOLERANCE, noise, relative_gaps
from onnxslim.runtime.latency import interleaved_latency
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from onnxslim.runtime.types import input_infos
from onnxslim.targets import get_target
from tests.bench.prune_reach.foretold import foretold, linear_share, profile
from tests.bench.prune_reach.subjects import CNN, Subject
from tests.bench.simplify.store import Record
from tests.pipelines import context

SHARE = 0.3
EVENLY = 0.7
"""Of the MACs, which `prune` leaves by default."""
_MANY = 10e9  # MACs, from which on two sizes are enough, with `width` one of several samples
_LEAST = 0.005  # of the MACs, that a reason must hold back to be told


@dataclass(frozen=True)
class Pair:
    """A model without what goes, and with it masked."""

    axes: AxisMap
    left: float  # MACs, by the analysis
    masked: Model
    pruned: Model


def prepared(subject: Subject) -> Model:
    """The model with constants and BatchNormalization folded, as the pass does first."""
    model = ir.load(subject.path)
    for ctx in context():
        Fold().run(model, ctx)
    editor = Editor(model)
    fuse_batchnorm(editor)
    editor.remove_dead()
    return model


def prune(model: Model, counts: Mapping[str, int], *, width: bool) -> Pair | None:
    """`prune{share=0.3}` without samples; None where there is nothing to prune.

    `counts` are the MACs of the node that makes each value.
    """
    pruned, masked = ir.snapshot(model), ir.snapshot(model)
    axes = axis_map(pruned, width=width)
    choices = _choices(axes)
    removed = removal(axes, choices, by_share(choices, SHARE))
    if not removed.any():
        return None
    own = _amounts(axes, pruned, counts)
    left = own.total(removed) / max(own.total(axes.nothing()), 1)
    mask(Editor(masked), axes, removed)
    _cut(pruned, axes, removed)
    return Pair(axes, left, masked, pruned)


def evenly(model: Model, counts: Mapping[str, int]) -> tuple[float, Model]:
    """What is left of the MACs, at most `EVENLY` where that can be, and the model without the rest.

    Each group loses as nearly the same share as multiples allow: a step costs as much as the square
    of the share that is gone then has grown, for each multiplication that the group takes part in.
    """
    pruned = ir.snapshot(model)
    axes = axis_map(pruned)
    own, whole = _amounts(axes, pruned, counts), axes.nothing()
    choices = [_even(choice, own, whole) for choice in _choices(axes)]
    total = own.total(whole)
    taken, left = within(axes, own, choices, EVENLY * total)
    _cut(pruned, axes, removal(axes, choices, taken))
    return left / max(total, 1), pruned


def _even(choice: Choice, own: amount.Amounts, whole: Array) -> Choice:
    group, ranking = choice.ranking.group, choice.ranking
    share: Array = np.arange(len(ranking.losses)) / group.size
    return replace(
        choice, ranking=replace(ranking, losses=share**2 * own.of(own.touched(group), whole))
    )


def _choices(axes: AxisMap) -> list[Choice]:
    target, floor = get_target("ort-cpu"), Prune(share=SHARE).floor
    found: list[Choice] = []
    for group in axes.groups:
        multiple, block = multiples(group, target)
        possible = steps(group.size, multiple, floor, block)
        ranking = rank(axes, group, Evidence({}, {}), "magnitude", possible[-1])
        found.append(Choice(ranking, possible))
    return found


def _amounts(axes: AxisMap, model: Model, counts: Mapping[str, int]) -> amount.Amounts:
    return amount.macs(axes, {n: counts.get(str(n.outputs[0].name), 0) for n in model.graph})


def _cut(model: Model, axes: AxisMap, removed: Array) -> None:
    editor = Editor(model)
    cut(editor, axes, removed)
    editor.remove_dead()
    ir.verify(model)


def macs(model: Model, feed: Feed) -> Mapping[Node, int]:
    """Multiply-accumulates of every node for this feed; the model is run where shapes need it."""
    fixed = ir.snapshot(model)
    for value in fixed.graph.inputs:
        if value.name in feed:
            value.shape = ir.Shape(feed[str(value.name)].shape)
    types = dict(ir.infer_types(fixed))
    table = cost_table(model, ShapeTable(types, {}))
    if table.unknown:
        table = cost_table(model, ShapeTable(types, observed_shapes(model, feed)))
    return table.counts


def _counts(model: Model, feed: Feed) -> dict[str, int]:
    """The same by the name of each node's first output."""
    return {str(node.outputs[0].name): count for node, count in macs(model, feed).items()}


def accepted(model: Model, feeds: Sequence[Feed]) -> list[Feed]:
    """The feeds whose sizes the model takes."""
    wanted = {info.name: info.shape or () for info in input_infos(model)}
    return [
        feed
        for feed in feeds
        if all(_fits(shape, feed[name]) for name, shape in wanted.items() if name in feed)
    ]


def _fits(shape: Sequence[int | str | None], array: Array) -> bool:
    pairs = zip(shape, array.shape, strict=False)
    return all(not isinstance(size, int) or size == given for size, given in pairs)


def gap(pair: Pair, feeds: Sequence[Feed]) -> Record:
    """The greatest relative difference from the masked original over all feeds, and the noise.

    Noise is looked for only where it matters: beyond the tolerance, on the feed that is worst.
    """
    undecided = before_choices(pair.pruned)
    one, other = (open_session(m, extra_outputs=undecided) for m in (pair.masked, pair.pruned))
    worst, at, wanted = -1.0, feeds[0], dict[str, Array]()
    for feed in feeds:
        outputs = one.run(feed)
        found = other.run(feed)
        if undecided:  # what is chosen by them may flip where two candidates are as good
            outputs = {name: outputs[name] for name in undecided}
        apart = max(relative_gaps(outputs, found).values())
        if apart > worst:
            worst, at, wanted = apart, feed, outputs
    rounding = max(noise(pair.masked, at, wanted, undecided).values()) if worst > TOLERANCE else 0.0
    return {"gap": worst, "noise": rounding, "sizes": len(feeds)}


_DETECTS = "NonMaxSuppression"
_CHOICES = (_DETECTS, "TopK", "NonZero", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def before_choices(model: Model) -> list[str]:
    """The reals that boxes are chosen by: of a detector they are compared instead of its outputs.

    What follows a choice differs wholly where rounding makes another one.
    """
    if all(ir.op(node) != _DETECTS for node in ir.nodes(model)):
        return []
    chosen, found = set[Value](), dict[str, None]()
    for node in model.graph:
        read = [value for value in node.inputs if value is not None]
        if any(value in chosen for value in read):
            chosen.update(node.outputs)
        elif ir.op(node) in _CHOICES:
            chosen.update(node.outputs)
            found.update((str(v.name), None) for v in read if ir.constant(v) is None)
    return list(found)


def stays(axes: AxisMap, counts: Mapping[str, int]) -> list[tuple[float, str]]:
    """The share of the MACs whose outputs must stay, by reason, the greatest first."""
    total, found = max(sum(counts.values()), 1), Counter[str]()
    by_label = {
        ir.label(layer.node): str(layer.node.outputs[0].name) for layer in axes.trace.layers
    }
    for stuck in axes.stuck:
        operator, _, reason = stuck.reason.partition(" '")
        reason = reason.partition("': ")[2]
        held = stuck.share * counts.get(by_label.get(stuck.node, ""), 0) / total
        found[f"{operator}: {reason}" if reason else stuck.reason] += held  # type: ignore[assignment]
    return [(share, reason) for reason, share in found.most_common() if share > _LEAST]


def measure(subject: Subject) -> Record:
    """A row of the table but for the latency."""
    model = prepared(subject)
    feeds = accepted(model, subject.feeds())
    counts = _counts(model, feeds[0])
    total = sum(counts.values())
    if total > _MANY:
        feeds = feeds[:2]
    row: Record = {"macs": total, "nodes": len(model.graph), "bytes": ir.weight_bytes(model)}
    for kind, width in (("plain", False), ("width", True)):
        if width and not axis_map(model, width=True).trace.restricted:
            continue  # it has no norms, so that nothing more can go
        start = time.process_time()
        pair = prune(model, counts, width=width)
        seconds = time.process_time() - start
        if pair is None:
            row[kind] = {"groups": {}, "stays": stays(axis_map(model), counts)}
            continue
        row[kind] = {
            "seconds": seconds,
            "groups": dict(Counter(group.kind for group in pair.axes.groups)),
            "macs": pair.left,
            "bytes": ir.weight_bytes(pair.pruned) / row["bytes"],
            "stays": stays(pair.axes, counts),
            **gap(pair, feeds[-1:] if width and total > _MANY else feeds),
        }
        gc.collect()
    return row


def latency(subject: Subject, budget: float) -> Record:
    """Milliseconds of the original, the ratio of the pruned model's with a 99 % interval, and what
    the work left of each kind foretells; of a detector up to where boxes are chosen, and how many
    it finds before and after; of a CNN also the ratio of the model that `evenly` makes."""
    model = prepared(subject)
    feed = accepted(model, subject.feeds())[0]
    pair = prune(model, {}, width=False) or prune(model, {}, width=True)
    if pair is None:
        return {}
    timed, ends = [model, pair.pruned], before_choices(pair.pruned)
    found: Record = {"boxes": [_boxes(m, feed) for m in timed]} if ends else {}
    left = 1.0
    if subject.family == CNN:
        left, milder = evenly(model, _counts(model, feed))
        timed.append(milder)
    if ends:
        timed = [up_to(m, ends) for m in timed]
    times = interleaved_latency([open_session(m) for m in timed], feed, 1, budget)
    if subject.family == CNN:
        found["evenly"] = {"macs": left, "ratio": times.ratio(2), "interval": times.interval(2)}
    works = [profile(m, feed) for m in timed[:2]]
    return {
        "ms": times.ms[0],
        "ratio": times.ratio(),
        "interval": times.interval(),
        "foretold": foretold(*works),
        "linear": linear_share(works[0]),
        **found,
    }


def up_to(model: Model, names: Sequence[str]) -> Model:
    """A copy that ends with these values."""
    part = ir.snapshot(model)
    ir.cut(part, outputs=names)
    return part


def _boxes(model: Model, feed: Feed) -> int:
    """How many a detector finds: the rows of its first output."""
    return len(open_session(model).run(feed)[str(model.graph.outputs[0].name)])
