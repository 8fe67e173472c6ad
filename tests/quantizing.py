"""Small models with random weights for the tests of quantization, and one run of the pass."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.neighbours import pairs
from onnxslim.passes.quant.prepare.seen import Seen, look
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.runtime.session import Optimize, open_session, optimized_graph
from onnxslim.targets import Target, get_target

DEFAULTS: Mapping[str, Array] = {
    "zero": np.float32(0),  # type: ignore[dict-item]
    "one": np.float32(1),  # type: ignore[dict-item]
    "three": np.array([3], np.float32),
    "six": np.float32(6),  # type: ignore[dict-item]
}


def build(body: str, weights: Mapping[str, Sequence[int] | Array], opset: int = 17) -> Model:
    """A model `g (inputs) => (outputs) { nodes }` with weights by name: arrays, or shapes of
    random ones (positive where the name starts with `var`)."""
    rng = np.random.default_rng(0)
    made = {**DEFAULTS, **{k: _content(k, v, rng) for k, v in weights.items()}}
    used = {k: v for k, v in made.items() if re.search(rf"\b{k}\b", body)}
    declared = ", ".join(f"{_type(v)} {k}" for k, v in used.items())
    more = ', "com.microsoft" : 1' if "com.microsoft." in body else ""
    head = f'<ir_version: 8, opset_import: ["" : {opset}{more}]>\n'
    inputs, rest = body.split(") =>", 1)
    model = ir.parse_text(f"{head}{inputs}, {declared}) =>{rest}" if used else head + body)
    editor = Editor(model)
    for value in [v for v in model.graph.inputs if v.name in used]:
        name = str(value.name)
        own = editor.initializer(model.graph, f"{name}_", np.asarray(used[name]))
        editor.rewire([(use.node, use.idx) for use in value.uses()], own)
        model.graph.inputs.remove(value)
        own.name = name
    ir.verify(model)
    return model


def _type(array: Array) -> str:
    name = {"float32": "float", "int64": "int64", "float64": "double"}[str(array.dtype)]
    return f"{name}[{','.join(map(str, array.shape))}]" if array.ndim else name


def _content(name: str, given: Sequence[int] | Array, rng: np.random.Generator) -> Array:
    if isinstance(given, np.ndarray):
        return given
    shape = tuple(given)
    if name.startswith("var"):
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
    content: Array = (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)
    return content


def feeds(model: Model, count: int = 4, sizes: Mapping[str, int] | None = None) -> list[Feed]:
    """Random normal feeds; symbolic dimensions are 2 unless `sizes` says otherwise."""
    rng = np.random.default_rng(1)
    found: list[Feed] = []
    for _ in range(count):
        feed: dict[str, Array] = {}
        for value in model.graph.inputs:
            assert value.shape is not None
            dims = [d if isinstance(d, int) else (sizes or {}).get(str(d), 2) for d in value.shape]
            feed[str(value.name)] = rng.normal(size=dims).astype(np.float32)
        found.append(feed)
    return found


def quantize(
    model: Model,
    calib: Sequence[Feed] | None = None,
    target: Target | None = None,
    cache: Path | None = None,
    **options: object,
) -> PassResult:
    """One run of the pass in place, as the pipeline would do it, by default for this machine."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(
            target=target or any_size(get_target("ort-cpu")),
            executor=executor,
            calib=None if calib is None else FeedList(calib),
            cache=cache,
        )
        context = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        result = Quant(**options).run(model, context)  # type: ignore[arg-type]
    ir.verify(model)
    return result


def seen_of(model: Model, samples: Sequence[Feed]) -> Seen:
    """What samples show of the channels between layers."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(samples))
        return look(model, pairs(model, bounded=True), env)


def any_size(target: Target) -> Target:
    """The target without its rule for first layers, as those of the small models are too small."""
    rules = {op: replace(rule, stem=(0, 0)) for op, rule in target.static.items()}
    return replace(target, static=rules)


def kernels(model: Model) -> Counter[str]:
    """The kernels of ONNX Runtime's optimized graph, without domains."""
    return Counter(ir.op(node).rpartition("::")[2] for node in optimized_graph(model).graph)


def operators(model: Model) -> Counter[str]:
    """The operators of the main graph."""
    return Counter(ir.op(node) for node in model.graph)


def outputs(model: Model, feed: Feed) -> list[Array]:
    """What the model computes, without optimizations."""
    return list(open_session(model, optimize="none").run(feed).values())


def sqnr_db(
    before: Model, after: Model, samples: Sequence[Feed], optimize: Optimize = "all"
) -> float:
    """Signal to noise of the first output over the samples."""
    one, two = open_session(before), open_session(after, optimize=optimize)
    signal = noise = 0.0
    for feed in samples:
        a, b = next(iter(one.run(feed).values())), next(iter(two.run(feed).values()))
        signal += float((a.astype(np.float64) ** 2).sum())
        noise += float(((a - b).astype(np.float64) ** 2).sum())
    return 10 * float(np.log10(signal / max(noise, 1e-30)))


def rounding_case(groups: int = 2, out: int = 12, d: int = 150) -> tuple[Array, Array, Array]:
    """Weights [G, out, d], scales of 4 bits [G, out], and covariances [G, d, d] far from equal."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(groups, out, d))
    mix = rng.normal(size=(groups, d, d)) * np.geomspace(1, 0.01, d)
    covariance: Array = mix @ np.swapaxes(mix, 1, 2)
    return weight, np.abs(weight).max(axis=2) / 7, covariance
