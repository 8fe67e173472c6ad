"""The choices that each unit of layers has: what is allowed and, as far as it is known, faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxslim.passes.lowrank.candidates import Candidate, candidates, frontier
from onnxslim.passes.lowrank.gather import Evidence, Members
from onnxslim.passes.lowrank.select import Goal
from onnxslim.passes.lowrank.timing import Speed, Times
from onnxslim.passes.lowrank.units import Choice, Joint, joint_choices, separate_choices


def choices(known: Evidence, goal: Goal) -> list[list[Choice]]:
    """For each unit its layers as they are, then what could be done to them; then the same for
    each table."""
    units = [
        _of_unit(known, unit, joints, goal)
        for unit, joints in zip(known.units, known.joints, strict=True)
    ]
    tables = [
        [Choice((c,)) for c in frontier(table.candidates(gains), goal.unit)]
        for table, gains in zip(known.tables, known.table_gains, strict=True)
    ]
    return [*units, *tables]


def _of_unit(known: Evidence, unit: Members, joints: Sequence[Joint], goal: Goal) -> list[Choice]:
    layers = [goal.allowed(_of_layer(known, i, goal)) for i in unit]
    found = separate_choices(layers, known.gains(unit), goal.unit)
    alone = [layer[0].ms for layer in layers]
    together = [c for joint in joints for c in joint_choices(known.members(unit), joint)]
    timed = [_timed(choice, known.times.get(unit), alone, goal) for choice in together]
    return [*found, *(choice for choice in timed if choice is not None and goal.allows(choice))]


def _of_layer(known: Evidence, at: int, goal: Goal) -> list[Candidate]:
    times = known.times.get((at,))
    first, *others = candidates(known.sites[at], known.cuts[at])
    if times is None:
        return [first] if goal.unit == "ms" else [first, *others]
    kept = [replace(first, ms=times.layer_ms)]
    for option in others:
        ms = None if option.cut is None else times.at(option.cut.scheme, option.rank)
        faster = ms is not None and Speed(times.layer_ms, ms).faster
        if faster or goal.unit == "params":
            kept.append(replace(option, ms=ms))
    return kept


def _timed(
    choice: Choice, times: Times | None, alone: Sequence[float | None], goal: Goal
) -> Choice | None:
    """With its time, on the scale of the layers timed alone; None where it is not faster."""
    ms = None
    if times is not None and choice.joint is not None:
        ms = times.at(choice.joint.scheme, choice.parts[0].rank)
    if times is None or ms is None:
        return None if goal.unit == "ms" else choice
    if goal.unit != "params" and not Speed(times.layer_ms, ms).faster:
        return None
    scale = sum(t or 0.0 for t in alone) / times.layer_ms
    first, *others = choice.parts
    return replace(
        choice, parts=(replace(first, ms=ms * scale), *(replace(o, ms=0.0) for o in others))
    )
