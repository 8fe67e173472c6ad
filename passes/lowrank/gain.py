"""How much an error of one layer shows in the model's outputs: one disturbed run per layer.

Behind every layer something is added that is zero but for the layer that is disturbed, so that one
session serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.distance import Distance
from onnxslim.ir import Array, Editor, Model, Value
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Session, open_session

DISTURBANCE = 0.03
"""The relative loss at which a layer is disturbed, as nearly as there is one."""

_FAR = 0.1
"""The relative error of the outputs from which on it may no longer grow with the layer's: the layer
is then disturbed less. (A layer that makes the few huge numbers of a language model ruins all that
follows long before its own relative error is large.)"""
_NEAR = 0.03  # what it is to be then
_TRIES = 4

_SAMPLES = 64
_MACS = 2e12  # for all runs together, which takes some minutes at most
_LEAST = 1e-2  # of the gain in the middle: below it one run says nothing
_TINY = 1e-9  # of the greatest: weights stay above zero


@dataclass(frozen=True)
class Probe:
    """A layer that is disturbed: `noise` gives what is added to its output, from its input."""

    input: str
    output: str
    noise: Callable[[Array], Array]
    loss: float  # what `noise` is on all samples, relative to the variance of the output


def gains(model: Model, probes: Sequence[Probe | None], macs: int, env: Environment) -> list[float]:
    """For each layer the relative output error of the model per relative error of the layer.

    Layers without a probe get 1. `macs` of one run bound the number of samples. Cost: one session
    and a run per layer and sample.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    known = [probe for probe in probes if probe is not None]
    if env.calib is None or not known:
        return [1.0] * len(probes)
    count = int(min(_SAMPLES, len(env.calib), max(1, _MACS / (max(macs, 1) * len(known)))))
    samples = env.calib.take([i * len(env.calib) // count for i in range(count)])
    disturbed = _Disturbed(model, known)

    def one(number: int) -> float | None:
        return disturbed.gain(number)

    disturbed.look(samples)
    values: list[float | None] = []
    for done, value in enumerate(env.executor.map(one, range(len(known))), start=1):
        values.append(value)
        env.progress("sensitivity of layers", done, len(known))
    found = iter(filled(values))
    return [1.0 if probe is None else next(found) for probe in probes]


class _Disturbed:
    """A model with an input for the noise of every layer, and what it gives without any."""

    def __init__(self, model: Model, probes: Sequence[Probe]) -> None:
        copy = ir.snapshot(model)
        self.probes = probes
        types = ir.infer_types(model, data_propagation=False)
        self.noises = [noise_input(copy, probe.output, types) for probe in probes]
        self.outputs = [str(value.name) for value in copy.graph.outputs]
        self.inputs = list(dict.fromkeys(probe.input for probe in probes))
        self.session: Session = open_session(copy, extra_outputs=self.inputs)
        self.seen: list[tuple[Feed, Mapping[str, Array], Mapping[str, Array]]] = []

    def look(self, samples: Samples) -> None:
        """Run the samples without noise."""
        for feed in samples:
            zeros = {str(value.name): np.zeros((), np.float32) for value in self.noises}
            whole = {**feed, **zeros}
            found = self.session.run(whole, [*self.outputs, *self.inputs])
            wanted = {name: found[name] for name in self.outputs}
            self.seen.append((whole, wanted, {name: found[name] for name in self.inputs}))

    def gain(self, number: int) -> float | None:
        """Relative error of the outputs over that of the layer; None where either is none."""
        probe = self.probes[number]
        noises = [probe.noise(inputs[probe.input]) for _, _, inputs in self.seen]
        if not probe.loss > 0 or not any(noise.any() for noise in noises):
            return None
        apart, scale = self._apart(number, noises), 1.0
        for _ in range(_TRIES):
            if apart is None or apart <= _FAR:
                break
            less = float(np.sqrt(_NEAR / apart))
            noises, scale = [noise * less for noise in noises], scale * less
            apart = self._apart(number, noises)
        return None if apart is None else apart / (scale**2 * probe.loss)

    def _apart(self, number: int, noises: Sequence[Array]) -> float | None:
        """Relative error of the outputs with this noise in each sample."""
        name, distance = str(self.noises[number].name), Distance()
        for (feed, wanted, _), noise in zip(self.seen, noises, strict=True):
            whole = {**feed, name: noise.astype(np.float32, copy=False)}
            distance.add(wanted, self.session.run(whole, self.outputs))
        apart = distance.by_feed()
        return None if apart is None else float(apart.mean())


def noise_input(model: Model, name: str, types: Mapping[str, ir.Inferred]) -> Value:
    """A new input of float32 that is added to a value of the model wherever it is read.

    `types` has the element types of the model's values; what it lacks is float32.
    """
    editor = Editor(model)
    value = next(v for node in model.graph for v in node.outputs if v.name == name)
    uses = [(use.node, use.idx) for use in value.uses()]
    noise = Value(name=editor.name(f"{name}_noise"))
    noise.dtype = ir.DataType.FLOAT
    model.graph.inputs.append(noise)
    dtype = (types[name].dtype if name in types else value.dtype) or ir.DataType.FLOAT
    made, term = list[ir.Node](), noise
    if dtype != ir.DataType.FLOAT:
        hint, to = f"{name}_noise", {"to": int(dtype)}
        made.append(editor.node("Cast", [noise], outputs=[hint], attributes=to))
        term = made[0].outputs[0]
    made.append(editor.node("Add", [value, term], outputs=[f"{name}_disturbed"]))
    result = made[-1].outputs[0]
    result.dtype, result.shape = dtype, value.shape
    producer = value.producer()
    if uses or producer is None:
        editor.insert_on_edge(value, made, result, uses)
    else:
        editor.insert_after(producer, made)
    for index, output in enumerate(model.graph.outputs):
        if output is value:
            model.graph.outputs[index] = result
    return noise


def filled(values: Sequence[float | None]) -> list[float]:
    """Every layer's gain: at least a hundredth of the median; the greatest where a layer gave none,
    and 1 where none gave one."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    top = max(known, default=0.0)
    if top <= 0:
        return [1.0] * len(values)
    least = max(_LEAST * float(np.median(known)), _TINY * top)
    return [max(v, least) if v is not None and np.isfinite(v) else top for v in values]
