"""The public surface: its names, what importing costs, and `compress` for all kinds of model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxslim
from onnxslim import errors, ir
from onnxslim.passes.quant.quant import Quant
from onnxslim.runtime.samples import FeedList
from tests.small import TEXT

FEEDS = {"x": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)}


@pytest.fixture
def model() -> ir.Model:
    return ir.parse_text(TEXT)


def python(code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout


def test_the_names() -> None:
    assert onnxslim.__all__ == [
        *("Aspect", "Compressed", "Context", "Declined", "Pass", "PassResult", "Report"),
        *("compress", "errors", "list_passes", "load", "option", "save", "slim"),
    ]
    assert all(getattr(onnxslim, name) is not None for name in onnxslim.__all__)
    assert set(onnxslim.__all__) <= set(dir(onnxslim))
    undocumented = [n for n in onnxslim.__all__ if not getattr(onnxslim, n).__doc__]
    assert undocumented == []
    with pytest.raises(AttributeError, match="module 'onnxslim' has no attribute 'nothing'"):
        _ = onnxslim.nothing


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, onnxslim; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    heavy = {"scipy", "onnxruntime", "rich", "onnx_graphsurgeon", "onnx", "onnx_ir", "cyclopts"}
    assert heavy & set(python(code).split()) == set()


def test_all_names_together_import_no_runtime() -> None:
    code = (
        "import sys, onnxslim\n"
        "for name in onnxslim.__all__: getattr(onnxslim, name)\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    heavy = {"scipy", "onnxruntime", "rich", "onnx_graphsurgeon", "cyclopts"}
    assert heavy & set(python(code).split()) == set()


def given(kind: str, model: ir.Model, folder: Path) -> Any:
    if kind == "path":
        ir.save(model, folder / "in.onnx")
        return folder / "in.onnx"
    if kind == "str":
        ir.save(model, folder / "in.onnx")
        return str(folder / "in.onnx")
    return ir.to_kind(model, kind)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "proto", "model", "gs"])
def test_it_returns_the_kind_it_was_given(kind: str, model: ir.Model, tmp_path: Path) -> None:
    source = given(kind, model, tmp_path)
    before = ir.checksum(ir.load(source))
    output = tmp_path / "out.onnx" if kind in ("path", "str") else None
    result = onnxslim.compress(source, output, passes="fold")
    assert type(result.model) is type(source)
    assert [n.op_type for n in ir.load(result.model).graph] == ["MatMul", "Add"]
    assert ir.checksum(ir.load(source)) == before
    assert result.report.pipeline == "fold,check"
    assert result.report.check is not None
    assert result.report.check.synthetic
    assert result.report.check.passed


def test_a_model_in_memory_can_be_saved_too(model: ir.Model, tmp_path: Path) -> None:
    result = onnxslim.compress(model, tmp_path / "out.onnx")
    assert ir.checksum(ir.load(tmp_path / "out.onnx")) == ir.checksum(result.model)
    assert result.report.output == str(tmp_path / "out.onnx")


def test_a_path_needs_an_output(model: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="the result needs a path too: `output`"):
        onnxslim.compress(given("path", model, tmp_path))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(errors.ModelError, match="got a int; expected a path, bytes"):
        onnxslim.compress(7)


@pytest.mark.parametrize("form", ["arrays", "feeds", "samples"])
def test_calibration_holds_samples_out_for_the_check(model: ir.Model, form: str) -> None:
    feeds = [{"x": row[None]} for row in FEEDS["x"]]
    calib: Any = {"arrays": FEEDS, "feeds": feeds, "samples": FeedList(feeds)}[form]
    report = onnxslim.compress(model, calib=calib, metric="sqnr").report
    assert report.check is not None
    assert (report.check.samples, report.check.synthetic) == (4, False)


def test_passes_may_be_objects(model: ir.Model) -> None:
    fold = next(type(p) for p in _passes("fold"))
    assert onnxslim.compress(model, passes=[fold()]).report.pipeline == "fold,check"


def _passes(text: str) -> tuple[onnxslim.Pass, ...]:
    from onnxslim.registry import build

    return build(text)


def test_a_failed_check_raises_with_the_report(model: ir.Model) -> None:
    class Spoil(onnxslim.Pass):
        name = "spoil"

        def run(self, model: ir.Model, ctx: Any) -> onnxslim.PassResult:
            from onnxslim.pipeline.analysis import Aspect

            weight = model.graph.initializers["w"]
            ir.Editor(model).replace_initializer(weight, -np.asarray(ir.array(weight)))
            return onnxslim.PassResult(Aspect.WEIGHTS | Aspect.NUMERICS)

    before = ir.checksum(model)
    with pytest.raises(errors.CheckFailed, match="first pass over budget is 'spoil'") as caught:
        onnxslim.compress(model, passes=[Spoil()], calib=FEEDS)
    assert isinstance(caught.value.report, onnxslim.Report)
    assert caught.value.report.check is not None
    assert caught.value.report.check.first_over_budget == "spoil"
    assert ir.checksum(model) == before
    best = onnxslim.compress(model, passes=[Spoil()], calib=FEEDS, keep_best=True)
    assert ir.checksum(best.model) == before
    assert best.report.notes[0].startswith("Already 'spoil' fails the check")


def test_progress_is_told(model: ir.Model) -> None:
    told: list[str] = []
    onnxslim.compress(model, progress=lambda what, done, total: told.append(what))
    assert "simplify" in told
    assert "check" in told


def test_the_same_seed_gives_the_same_bytes(model: ir.Model) -> None:
    source = ir.to_bytes(model)
    first, second = (onnxslim.compress(source, calib=FEEDS, seed=3).model for _ in range(2))
    assert first == second


def test_every_pass_is_listed_with_help_for_every_option() -> None:
    listed = {info.name: info for info in onnxslim.list_passes()}
    assert {"fold", "lowrank", "quant", "check"} <= set(listed)
    silent = [(i.name, o.name) for i in listed.values() for o in i.options if not o.help]
    assert silent == []
    assert all(info.summary and not info.problem for info in listed.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"passes": None}, "passes: None: expected text such as 'simplify,quant', or passes"),
        ({"passes": [onnxslim.Pass]}, "expected text such as 'simplify,quant', or passes"),
        ({"metric": len}, "--metric <built-in function len>: expected the name of a metric, or of"),
        ({"max_drop": "0.1"}, "--max-drop '0.1': expected a number"),
        ({"threads": 1.5}, "--threads 1.5: expected a whole number"),
        ({"seed": "2"}, "--seed '2': expected a whole number"),
        ({"target": 3}, "--target 3: expected the name of a target"),
        ({"calib": FEEDS["x"]}, "an array; say which input it is for: {'x': ...}"),
    ],
)
def test_what_is_of_another_type_is_told(
    model: ir.Model, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.OnnxSlimError, match=re.escape(message)):
        onnxslim.compress(model, **given)


def test_passes_may_be_a_list_of_texts_and_one_name_is_a_name(model: ir.Model) -> None:
    done = onnxslim.compress(model, passes=["fold", "simplify"], outputs="t", check=False)
    assert done.report.pipeline == "fold,simplify"
    assert [value.name for value in done.model.graph.outputs] == ["t"]


def test_options_of_pass_objects_are_read_as_text_is(model: ir.Model) -> None:
    with pytest.raises(errors.OptionError, match="option 'scheme': given 'int88', expected one of"):
        onnxslim.compress(model, passes=[Quant(scheme="int88")])  # type: ignore[arg-type]
    one = Quant(scheme="dynamic", ops="MatMul")  # type: ignore[arg-type]
    done = onnxslim.compress(model, passes=[one], check=False)
    assert done.report.pipeline == "quant{scheme=dynamic ops=MatMul}"


def test_what_cannot_be_saved_is_told(model: ir.Model, tmp_path: Path) -> None:
    proto: Any = ir.to_proto(model)
    with pytest.raises(errors.ModelError, match=r"got a ModelProto; expected what load gives"):
        onnxslim.save(proto, tmp_path / "m.onnx")
