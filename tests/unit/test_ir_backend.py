"""ONNX's own 2036 backend test models: loaded and given back, nothing lost, outputs equal."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import onnx  # noqa: TID251 - the models of ONNX's backend tests come from the package itself
import onnx.backend.test  # noqa: TID251
import pytest
from onnx.backend.test.case.model import collect_testcases  # noqa: TID251
from onnx.backend.test.loader import load_model_tests  # noqa: TID251
from onnx.numpy_helper import to_array  # noqa: TID251

from onnxslim import ir

FOLDER = os.path.join(os.path.dirname(onnx.backend.test.__file__), "data")

# What ONNX Runtime runs of them, and what gives other outputs in two runs of one model.
RUN_AT_LEAST = 1600
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


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def test_every_model_of_the_corpus_is_there(corpus: Corpus) -> None:
    assert len(corpus.models) == 2036 or not onnx.__version__.startswith("1.23.")


def test_round_trip_is_valid_and_leaves_the_source_alone(corpus: Corpus) -> None:
    for name, proto in corpus.models.items():
        before = proto.SerializeToString()
        back = ir.to_proto(ir.load(proto))
        onnx.checker.check_model(back)
        assert proto.SerializeToString() == before, f"{name}: the source was changed"


def test_nothing_is_lost(corpus: Corpus) -> None:
    """Compared field by field; only type information that repeats other fields may differ."""
    differing = {
        name: found
        for name, proto in corpus.models.items()
        if (found := sorted(_differences(proto, ir.to_proto(ir.load(proto)))))
    }
    assert differing == {}


def _differences(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    for one, two in ((before, after), (after, before)):
        facts = Counter(_facts(one))
        facts.subtract(Counter(_facts(two)))
        yield from (str(fact)[:200] for fact, count in facts.items() if count > 0)


def _facts(proto: onnx.ModelProto) -> Iterator[Any]:
    """All that a model says, as a bag of facts."""
    for field, value in proto.ListFields():
        if field.name == "opset_import":
            yield from (("opset", o.domain, o.version) for o in value)
        elif field.name == "graph":
            yield from _graph_facts(value, "main")
        elif value:  # a default that is written out says nothing
            yield field.name, str(value)


def _graph_facts(graph: onnx.GraphProto, where: str) -> Iterator[Any]:
    known = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    for group in ("input", "output"):
        for index, value in enumerate(getattr(graph, group)):
            yield where, group, index, value.SerializeToString(deterministic=True)
    for value in graph.value_info:
        if value.name not in known and value.type.WhichOneof("value"):
            yield where, "value_info", value.SerializeToString(deterministic=True)
    for tensor in graph.initializer:
        yield where, "initializer", tensor.SerializeToString(deterministic=True)
    for index, node in enumerate(graph.node):
        place = f"{where}/{index}"
        domain = "" if node.domain == "ai.onnx" else node.domain
        yield place, node.name, node.op_type, domain, tuple(node.input), tuple(node.output)
        yield place, node.doc_string, node.overload, str(node.metadata_props)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graph_facts(attribute.g, f"{place}.{attribute.name}")
            else:
                yield place, attribute.SerializeToString(deterministic=True)


def test_outputs_are_equal_where_onnx_runtime_runs_them(corpus: Corpus) -> None:
    ran = 0
    wrong: list[str] = []
    for name, proto in corpus.models.items():
        feed = corpus.feed(name)
        if feed is None or any(node.op_type in RANDOM for node in proto.graph.node):
            continue
        before = _run(proto.SerializeToString(), feed)
        if before is None:
            continue
        ran += 1
        after = _run(ir.to_bytes(ir.load(proto)), feed)
        if after is None or not _equal(before, after):
            wrong.append(name)
    assert wrong == []
    assert ran >= RUN_AT_LEAST


def _run(data: bytes, feed: dict[str, Any]) -> list[Any] | None:
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


def _equal(before: Any, after: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(before, list):
        pairs: list[tuple[Any, Any]] = list(zip_longest(cast("Sequence[Any]", before), after))
        return all(_equal(one, two) for one, two in pairs)
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
