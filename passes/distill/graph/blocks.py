"""Where a student can be cut into blocks: values that all of what follows depends on alone."""

from __future__ import annotations

from collections.abc import Collection

from onnxslim.passes.distill.graph.program import Program


def bottlenecks(program: Program, constant: Collection[str]) -> list[str]:
    """Values through which everything from the inputs to the outputs goes, in order.

    `constant` are values that do not depend on the inputs. Call it after `Program.fold`.
    """
    fixed = {*program.constants, *constant}
    last: dict[str, int] = {}
    for at, step in enumerate(program.steps):
        for name in step.inputs:
            if name is not None and name not in fixed:
                last[name] = at
    for name in program.outputs:
        last[name] = len(program.steps)
    alive = {n for n in (*program.inputs, *program.borders) if n in last}
    found: list[str] = []
    for at, step in enumerate(program.steps):
        alive |= {name for name in step.outputs if last.get(name, -1) > at and name not in fixed}
        alive = {name for name in alive if last[name] > at}
        if len(alive) == 1 and step.outputs[0] in alive:
            found.append(step.outputs[0])
    return [name for name in found if name not in program.outputs]
