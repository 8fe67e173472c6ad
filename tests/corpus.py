"""The models of ONNX's own backend tests, and running them to compare outputs bit by bit."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import onnx  # noqa: TID251 - the models of ONNX's backend tests come from the package itself
import onnx.backend.test  # noqa: TID251
import onnxruntime as ort
from onnx.backend.test.case.model import collect_testcases  # noqa: TID251
from onnx.backend.test.loader import load_model_tests  # noqa: TID251
from onnx.numpy_helper import to_array  # noqa: TID251

from onnxslim import ir
from onnxslim.errors import ModelError

# How many of the models run, less a few: 1629 in ONNX Runtime 1.32, and 1292 in 1.23, the newest
# for Python 3.10. Fewer would mean that the comparison of outputs sees too little.
RUN_AT_LEAST = 1600 if tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 30) else 1250

FOLDER = os.path.join(os.path.dirname(onnx.backend.test.__file__), "data")

# What gives other outputs in two runs of one model.
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"} | {
    "Bernoulli",
    "Multinomial",
    "Dropout",
}


def _cases() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of the cases divide by zero on purpose
        seen: set[str] = set()
        for kind in ("node", "simple", "pytorch-converted", "pytorch-operator"):
            for case in load_model_tests(kind=kind):
                seen.add(case.name)
                yield case
        yield from (c for c in collect_testcases() if c.model is not None and c.name not in seen)


class Corpus:
    """All models, with the inputs of their first data set."""

    def __init__(self) -> None:
        self.models: dict[str, onnx.ModelProto] = {}
        self._inputs: dict[str, Any] = {}
        for case in _cases():
            self.models[case.name] = case.model or onnx.load(f"{case.model_dir}/model.onnx")
            self._inputs[case.name] = case.data_sets[0][0] if case.data_sets else case.model_dir
        for name in sorted(os.listdir(f"{FOLDER}/light")):
            if name.endswith(".onnx"):
                self.models[name] = onnx.load(f"{FOLDER}/light/{name}")

    def runnable(self) -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any], Any]]:
        """Name, model, inputs and outputs of what ONNX Runtime runs the same way each time."""
        for name, proto in self.models.items():
            feed = self.feed(name)
            if feed is None or any(node.op_type in RANDOM for node in proto.graph.node):
                continue
            outputs = run(proto.SerializeToString(), feed)
            if outputs is not None:
                yield name, proto, feed, outputs

    def feed(self, name: str) -> dict[str, Any] | None:
        """The inputs by name; None where the data set has something that is not a tensor."""
        source = self._inputs.get(name)
        if source is None:
            return None
        if isinstance(source, str):
            values: Sequence[Any] = _stored(f"{source}/test_data_set_0")
        elif isinstance(source, dict):
            return cast("dict[str, Any]", source)
        else:
            values = source
        names = [value.name for value in self.models[name].graph.input]
        return dict(zip(names, values, strict=False))


def _stored(folder: str) -> list[Any]:
    count = len([n for n in os.listdir(folder) if n.startswith("input_")])
    values: list[Any] = []
    for index in range(count):
        tensor = onnx.TensorProto()
        with open(f"{folder}/input_{index}.pb", "rb") as file:
            tensor.ParseFromString(file.read())
        values.append(to_array(tensor))
    return values


def run(data: bytes, feed: dict[str, Any]) -> list[Any] | None:
    """The outputs, without optimizations; None where ONNX Runtime cannot run the model."""
    try:
        session = _session(data)
        wanted = {value.name for value in session.get_inputs()}
        result: list[Any] = session.run(None, {k: v for k, v in feed.items() if k in wanted})
    except Exception:  # noqa: BLE001 - no kernel, or inputs it does not take: not what is tested
        return None
    return result


def _session(data: bytes) -> Any:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def equal(before: Any, after: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(before, list):
        pairs: list[tuple[Any, Any]] = list(zip_longest(cast("Sequence[Any]", before), after))
        return all(equal(one, two) for one, two in pairs)
    if before is None or after is None:
        return before is after
    one, two = np.asarray(before), np.asarray(after)
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return (
        bool(np.array_equal(one, two))
        if one.dtype.kind in "OUS"
        else (one.tobytes() == two.tobytes())
    )


def fix_inputs(model: ir.Model, feed: dict[str, Any]) -> None:
    """Give every tensor input its value for good."""
    editor = ir.Editor(model)
    for value in list(model.graph.inputs):
        fed = feed.get(str(value.name))
        if type(fed) is np.ndarray and value.uses() and not value.is_graph_output():
            array: ir.Array = fed
            fixed = editor.initializer(model.graph, f"{value.name}_fixed", array)
            editor.rewire([(use.node, use.idx) for use in value.uses()], fixed)


def why_wrong(
    model: ir.Model, feed: dict[str, Any], before: list[Any], roundings: int = 0
) -> str | None:
    """What is wrong with a changed model: it must be valid, and its outputs equal.

    `roundings`: by how many units in the last place of the largest element, or of one, float
    outputs may differ; with none they are equal to the last bit.
    """
    try:
        ir.verify(model)
    except ModelError as error:
        return str(error)
    after = run(ir.to_bytes(model), feed)
    if after is None:
        return "it cannot be run any more"
    if equal(before, after) or (uses_float16(model) and close(before, after)):
        return None
    if roundings and near(before, after, roundings):
        return None
    return "the outputs differ"


def near(before: list[Any], after: list[Any], roundings: int) -> bool:
    """Whether floats differ by so many roundings at most, and all else is equal."""
    for one, two in zip(before, after, strict=True):
        floats = isinstance(one, np.ndarray) and cast("ir.Array", one).dtype.kind == "f"
        if floats and (one.dtype, one.shape) == (two.dtype, two.shape):
            if distance(cast("ir.Array", one), two) > roundings:
                return False
        elif not equal(one, two):
            return False
    return True


def distance(one: ir.Array, two: ir.Array) -> float:
    """The largest difference, in units of the last place of the largest element, or of one."""
    x, y = (np.asarray(a, np.float64) for a in (one, two))
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return float("inf")
    unit = float(np.finfo(one.dtype).eps) * max(1.0, float(np.abs(x[finite]).max(initial=0)))
    return float(np.abs(x[finite] - y[finite]).max(initial=0)) / unit


def uses_float16(model: ir.Model) -> bool:
    return any(t.dtype == ir.DataType.FLOAT16 for t in ir.infer_types(model).values())


def close(before: list[Any], after: list[Any]) -> bool:
    """ONNX Runtime computes float16 as float32 between casts, and drops casts between neighbours:
    with a copy less between two nodes a rounding to float16 is left out, which is half an ulp of
    2^-11 at each of at most four places before outputs of magnitude one."""
    pairs = zip(before, after, strict=True)
    return all(np.abs(a.astype(np.float64) - b).max(initial=0) <= 2 * 2.0**-11 for a, b in pairs)
