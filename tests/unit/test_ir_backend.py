"""ONNX's own 2036 backend test models: loaded and given back, nothing lost, outputs equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx  # noqa: TID251 - the models of ONNX's backend tests come from the package itself
import pytest

from onnxslim import ir
from onnxslim.ir import carve
from onnxslim.ir.mapped import MappedTensor
from tests.corpus import RUN_AT_LEAST, Corpus, equal, run


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


def test_bytes_give_the_same_model_with_all_data_left_where_they_are(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carve, "CARVED", 1)
    left = 0
    for name, proto in corpus.models.items():
        model = ir.load(proto.SerializeToString())
        left += sum(isinstance(tensor, MappedTensor) for tensor in ir.tensors(model))
        back = onnx.ModelProto.FromString(ir.to_bytes(model))
        assert back == ir.to_proto(ir.load(proto)), name
    assert left > 100


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
    for name, proto, feed, before in corpus.runnable():
        ran += 1
        after = run(ir.to_bytes(ir.load(proto)), feed)
        if after is None or not equal(before, after):
            wrong.append(name)
    assert wrong == []
    assert ran >= RUN_AT_LEAST
