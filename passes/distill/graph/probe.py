"""The student in torch, compared with ONNX Runtime before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.convert import to_torch
from onnxslim.passes.distill.graph.program import Program, StepFailed
from onnxslim.pipeline.base import Declined
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session

TOLERANCE = 1e-4
"""Of the largest number of an output, or of 1."""

QUANTIZED_TOLERANCE = 0.05
"""The same, as a root mean square: where codes are rounded, one rounding that differs moves what
follows by a whole step."""

_TRIES = 32


def convert(model: Model, feed: Feed, threads: int, device: str = "cpu") -> Program | str:
    """The program of a model that computes what ONNX Runtime does on this sample; else why not.

    A node that torch cannot compute is left out, and so is all that it alone depends on.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    left_out: dict[str, str] = {}
    for _ in range(_TRIES):
        program = Program(model, left_out, device=device)
        known = open_session(
            model, extra_outputs=program.borders, threads=threads, optimize="basic"
        )
        values = known.run(feed)
        names = [n for n in program.borders if n not in values]
        values |= known.run(feed, names) if names else {}
        if blocked := [n for n in program.outputs if n in program.borders]:
            return _blocked(program, blocked[0])
        fed = {n: to_torch(np.asarray(feed[n]), program.dtype, device)
               for n in program.inputs if n in feed}  # fmt: skip
        fed |= {n: to_torch(np.asarray(values[n]), program.dtype, device) for n in program.borders}
        try:
            with torch.no_grad():
                found = program.run(fed)
        except StepFailed as failed:
            left_out[failed.output] = failed.reason
            continue
        return _compared(model, program, values, {n: t.cpu().numpy() for n, t in found.items()})
    return f"more than {_TRIES} operators cannot be differentiated"


def _blocked(program: Program, output: str) -> str:
    name, reason = next((n, r) for n, r in reversed(program.left_out.items()))
    own = program.nodes.get(output)
    if own is not None and str(own.outputs[0].name) in program.left_out:
        name, reason = str(own.outputs[0].name), program.left_out[str(own.outputs[0].name)]
    node = program.nodes[name]
    return f"output '{output}' cannot be differentiated: {ir.op(node)} '{ir.label(node)}': {reason}"


def _compared(
    model: Model, program: Program, wanted: Mapping[str, Array], found: Mapping[str, Array]
) -> Program | str:
    quantized = any(ir.op(node).endswith("QuantizeLinear") for node in model.graph)
    for name in program.outputs:
        one, two = wanted[name], found[name]
        if getattr(one, "dtype", np.dtype(object)).kind != "f":
            continue
        if one.shape != two.shape:
            return f"output '{name}' has shape {two.shape} in torch and {one.shape} before"
        apart, size = np.abs(one.astype(np.float64) - two), max(float(np.abs(one).max()), 1.0)
        if quantized:
            rms = float(np.sqrt(np.square(one.astype(np.float64)).mean()))
            if np.sqrt(np.square(apart).mean()) > QUANTIZED_TOLERANCE * max(rms, 1e-12):
                return f"output '{name}' differs in torch by {apart.max():.3g}"
        elif not apart.max(initial=0) <= TOLERANCE * size:
            return f"output '{name}' differs in torch by {apart.max():.3g}"
    return program


def reasons(program: Program) -> list[Declined]:
    """The nodes that torch does not compute, and why what they depend on is not trained."""
    return [
        Declined(
            ir.label(program.nodes[name]),
            f"{ir.op(program.nodes[name])}: {reason}; what it depends on is not trained",
        )
        for name, reason in program.left_out.items()
        if set(program.borders).intersection(str(v.name) for v in program.nodes[name].outputs)
    ]
