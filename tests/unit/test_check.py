"""The check: verdicts, rules on collapse, limits, and what is said when nothing was verified."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import ConfigError, DataError
from onnxslim.passes.check.check import Check
from onnxslim.passes.check.compare import Limits, compare
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult, Verdict
from onnxslim.pipeline.options import from_spec, to_spec
from onnxslim.pipeline.spec import parse_pipeline
from onnxslim.runtime.samples import Array, FeedList, Samples
from onnxslim.targets.base import Target

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1]>'
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def _model(body: str, output: str = "float[N, 3] y") -> ir.Model:
    return ir.parse_text(HEAD + f"g (float[N, 3] x) => ({output}) {{ {body} }}")


def _scaled(*factors: float) -> ir.Model:
    """Scores = input times a factor per class."""
    weights = ", ".join(str(float(f)) for f in factors)
    return ir.parse_text(
        HEAD + f"g (float[N, 3] x) => (float[N, 3] y) <float[3] c = {{{weights}}}> "
        "{ y = Mul(x, c) }"
    )


SAME = _scaled(1, 1, 1)
LABELS = [np.asarray(row.argmax()) for row in X]


def _samples(labels: Sequence[Array] | None = None) -> Samples:
    return FeedList([{"x": row[None]} for row in X], labels)


def _compare(after: ir.Model, before: ir.Model = SAME, **limits: float) -> Verdict:
    return compare(before, after, _samples(), limits=Limits(**limits))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _run(
    check: Check,
    after: ir.Model,
    pool: ThreadPoolExecutor,
    samples: Samples | None,
    before: ir.Model = SAME,
) -> PassResult:
    env = Environment(Target("ort-cpu"), pool, evaluation=samples)
    ctx = Context(env, AnalysisManager(after, env), before)
    check.prepare(ctx)
    return check.run(after, ctx)


# What is measured


def test_an_equal_model_passes_with_infinite_sqnr() -> None:
    verdict = _compare(SAME)
    assert verdict.passed
    assert (verdict.metric, verdict.before, verdict.after, verdict.drop) == ("agreement", 1, 1, 0)
    assert verdict.sqnr_db == {"y": math.inf}
    assert verdict.within_tolerance == {"y": 1.0}
    assert verdict.samples == 40
    assert not verdict.synthetic


def test_sqnr_is_signal_over_noise() -> None:
    verdict = _compare(_scaled(1.1, 1.1, 1.1))
    # y - x = 0.1 x: 20 dB; factors and products in float32 leave a relative 1e-6 of the noise.
    assert verdict.sqnr_db["y"] == pytest.approx(20, abs=1e-4)
    assert verdict.within_tolerance["y"] == 0
    assert verdict.passed


def test_top1_is_the_default_with_class_labels() -> None:
    verdict = compare(SAME, _scaled(1, 1, 0.2), _samples(LABELS))
    assert verdict.metric == "top1"
    assert verdict.before == 1
    scores = X * np.array([1, 1, 0.2], np.float32)
    assert verdict.after == np.mean(scores.argmax(1) == X.argmax(1))
    assert verdict.interval is not None
    assert verdict.drop is not None
    assert verdict.drop_interval is not None
    assert verdict.drop_interval[0] < verdict.drop < verdict.drop_interval[1]


def test_labels_that_are_no_classes_leave_agreement() -> None:
    real = [np.array(0.5) for _ in X]
    beyond = [np.array(3) for _ in X]
    assert compare(SAME, SAME, _samples(real)).metric == "agreement"
    assert compare(SAME, SAME, _samples(beyond)).metric == "agreement"


def test_sqnr_is_the_default_without_class_scores() -> None:
    model = _model("y = Neg(x) z = Abs(x)", "float[N, 3] y, float[N, 3] z")
    noisy = _model(
        "c = Constant<value_float = 1.1>() y = Neg(x) a = Abs(x) z = Mul(a, c)",
        "float[N, 3] y, float[N, 3] z",
    )
    verdict = _compare(noisy, model)
    assert verdict.metric == "sqnr"
    assert verdict.before is None
    assert verdict.after == pytest.approx(20, abs=1e-4)


def test_the_users_function_sees_all_outputs_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user_metric.py").write_text(
        "def mean(outputs, labels):\n"
        "    assert len(outputs) == len(labels) == 40\n"
        "    return sum(float(o['y'].sum()) for o in outputs)\n"
        "def broken(outputs, labels):\n    raise ZeroDivisionError('no pairs')\n"
        "def text(outputs, labels):\n    return 'good'\n"
        "def nan(outputs, labels):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_metric", raising=False)

    def found(name: str) -> Verdict:
        metric = f"user_metric:{name}"
        return compare(SAME, _scaled(2, 2, 2), _samples(LABELS), metric=metric)

    verdict = found("mean")
    assert verdict.before == pytest.approx(float(X.sum()), rel=1e-5)
    assert verdict.after == pytest.approx(2 * float(X.sum()), rel=1e-5)
    for name, message in (
        ("broken", "metric user_metric:broken failed: ZeroDivisionError: no pairs"),
        ("text", "metric user_metric:text gave a str; expected one number"),
        ("nan", "metric user_metric:nan: nan for the original; expected a number"),
        ("gone", "the module 'user_metric' has no function 'gone'"),
    ):
        with pytest.raises(DataError, match=message):
            found(name)


# Collapse


def _reasons(verdict: Verdict) -> str:
    assert not verdict.passed
    return "; ".join(verdict.reasons)


def test_new_nan_is_a_collapse_old_nan_is_not() -> None:
    root = _model("y = Sqrt(x)")
    assert "NaN or Inf where the original had numbers" in _reasons(_compare(root))
    assert compare(root, root, _samples(), metric="sqnr").passed


def test_more_noise_than_signal_is_a_collapse() -> None:
    assert _compare(_scaled(1.9, 1.9, 1.9)).passed
    assert "more noise than signal (-0.8 dB)" in _reasons(_compare(_scaled(2.1, 2.1, 2.1)))
    assert "more noise than signal" in _reasons(_compare(_scaled(-1, -1, -1)))


def test_tiny_outputs_are_judged_by_the_absolute_tolerance() -> None:
    tiny = _scaled(1e-9, 1e-9, 1e-9)
    assert _compare(_scaled(-1e-9, -1e-9, -1e-9), tiny, atol=1e-7).reasons == (
        "agreement is 0, below half of the original's 1",
    )
    verdict = _compare(_scaled(3e-9, 3e-9, 3e-9), tiny, atol=1e-7)
    assert verdict.passed
    assert "more noise" in _reasons(_compare(_scaled(3e-9, 3e-9, 3e-9), tiny, atol=1e-12))


def test_half_the_accuracy_is_a_collapse() -> None:
    wrong = [np.asarray((row.argmax() + 1) % 3) for row in X]
    right = [*LABELS[:20], *wrong[20:]]
    turned = _model("i = Constant<value_ints = [2, 0, 1]>() y = Gather<axis = 1>(x, i)")
    verdict = compare(SAME, turned, _samples(right))
    assert (verdict.before, verdict.after) == (0.5, 0.5)
    assert "below half" in _reasons(compare(SAME, turned, _samples(LABELS)))


def test_integer_outputs_must_mostly_agree() -> None:
    best = _model("y = ArgMax<axis = 1, keepdims = 0>(x)", "int64[N] y")
    worst = _model("y = ArgMin<axis = 1, keepdims = 0>(x)", "int64[N] y")
    assert _compare(best, best).passed
    assert "equals the original's in 0.0% of its elements" in _reasons(_compare(worst, best))


@pytest.mark.parametrize(
    ("body", "output", "message"),
    [
        (
            "s = Constant<value_ints = [3]>() y = Reshape(x, s)",
            "float[3] y",
            "output 'y' was float32 [1, 3] and is float32 [3]",
        ),
        (
            "y = Cast<to = 11>(x)",
            "double[N, 3] y",
            "output 'y' was float32 [1, 3] and is float64 [1, 3]",
        ),
        ("z = Neg(x)", "float[N, 3] z", "output 'y' is missing"),
    ],
)
def test_outputs_must_be_there_in_shape_and_type(body: str, output: str, message: str) -> None:
    verdict = _compare(_model(body, output))
    assert verdict.reasons == (message,)
    assert not verdict.passed


def test_sequences_are_compared_part_by_part() -> None:
    def split(op: str) -> ir.Model:
        return _model(f"a = {op}(x) y = SequenceConstruct(a, x)", "seq(float[N, 3]) y")

    assert _compare(split("Abs"), split("Abs")).sqnr_db == {"y": math.inf}
    assert _compare(split("Identity"), split("Abs")).sqnr_db["y"] < 10
    short = _model("y = SequenceConstruct(x)", "seq(float[N, 3]) y")
    assert "is a list of float32 [1, 3]" in _reasons(_compare(short, split("Abs")))


def test_a_result_that_does_not_run_fails() -> None:
    lost = _model("y = com.foo.Bar(x)")
    assert "the result does not run: ONNX Runtime has no operator" in _reasons(_compare(lost))
    picky = _model("s = Constant<value_ints = [7, 3]>() y = Reshape(x, s)")
    assert "the result does not run on sample 0" in _reasons(_compare(picky))


def test_a_sample_that_the_original_cannot_take_is_the_datas_fault() -> None:
    with pytest.raises(DataError, match="sample 0 does not run on the original"):
        compare(SAME, SAME, FeedList([{"x": X[:, :2]}]))


# Limits


def test_max_drop_is_in_units_of_the_metric() -> None:
    after = _scaled(1, 1, 0.2)
    drop = compare(SAME, after, _samples(LABELS)).drop
    assert drop is not None
    assert compare(SAME, after, _samples(LABELS), limits=Limits(max_drop=drop)).passed
    verdict = compare(SAME, after, _samples(LABELS), limits=Limits(max_drop=drop - 0.01))
    assert verdict.limit == drop - 0.01
    assert f"top1 dropped by {drop:.4g} from 1 to" in _reasons(verdict)


def test_cosine_drops_from_one() -> None:
    after = _scaled(1, 1, 0.5)
    found = compare(SAME, after, _samples(), metric="cosine", limits=Limits(max_drop=0.001))
    assert found.before == 1
    assert found.drop == pytest.approx(1 - (found.after or 0))
    assert "cosine dropped by" in _reasons(found)


def test_min_sqnr_holds_for_every_output() -> None:
    assert _compare(_scaled(1.1, 1.1, 1.1), min_sqnr=19.9).passed
    verdict = _compare(_scaled(1.1, 1.1, 1.1), min_sqnr=20.1)
    assert "output 'y' has 20.0 dB SQNR, fewer than 20.1" in _reasons(verdict)


def test_max_drop_without_a_metric_to_drop_is_refused() -> None:
    model = _model("y = Neg(x) z = Abs(x)", "float[N, 3] y, float[N, 3] z")
    with pytest.raises(ConfigError, match=r"max_drop 0\.01 has no metric to be taken from"):
        compare(model, model, _samples(), limits=Limits(max_drop=0.01))


@pytest.mark.parametrize("metric", ["top1", "agreement"])
def test_class_metrics_need_one_output_of_scores(metric: str) -> None:
    model = _model("y = Neg(x) z = Abs(x)", "float[N, 3] y, float[N, 3] z")
    with pytest.raises(ConfigError, match=f"metric {metric} needs one output of class scores, th"):
        compare(model, model, _samples(LABELS), metric=metric)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels missing"),
        ([np.zeros(3, np.int64)] * 40, r"1 predictions per sample .*labels of shape \[3\], int64"),
        ([np.array(0.5)] * 40, r"labels of shape \[\], float64"),
    ],
)
def test_top1_needs_one_class_number_per_prediction(
    labels: Sequence[Array] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        compare(SAME, SAME, _samples(labels), metric="top1")


def test_cosine_needs_a_real_output() -> None:
    model = _model("y = ArgMax<axis = 1, keepdims = 0>(x)", "int64[N] y")
    with pytest.raises(ConfigError, match="no real-valued output"):
        compare(model, model, _samples(), metric="cosine")


# The pass


def test_the_pass_changes_nothing_and_gives_the_verdict(executor: ThreadPoolExecutor) -> None:
    result = _run(Check(max_drop=0.01), SAME, executor, _samples(LABELS))
    assert result.changed == Aspect.NONE
    assert result.notes == ()
    assert result.verdict is not None
    assert result.verdict.passed
    assert result.verdict.limit == 0.01


def test_without_samples_only_a_collapse_is_looked_for(executor: ThreadPoolExecutor) -> None:
    result = _run(Check(), _scaled(1, 1, 0.2), executor, None)
    assert result.verdict is not None
    assert result.verdict.synthetic
    assert result.verdict.metric == "sqnr"
    assert result.verdict.passed
    assert "Accuracy was not verified" in result.notes[0]
    broken = _run(Check(), _model("y = Sqrt(x)"), executor, None).verdict
    assert broken is not None
    assert not broken.passed


def test_made_up_inputs_fail_no_classes(executor: ThreadPoolExecutor) -> None:
    best = _model("y = ArgMax<axis = 1, keepdims = 0>(x)", "int64[N] y")
    worst = _model("y = ArgMin<axis = 1, keepdims = 0>(x)", "int64[N] y")
    verdict = _run(Check(), worst, executor, None, before=best).verdict
    assert verdict is not None
    assert verdict.passed


@pytest.mark.parametrize("samples", [None, _samples()])
def test_an_original_that_cannot_run_is_not_checked(
    samples: Samples | None, executor: ThreadPoolExecutor
) -> None:
    lost = _model("y = com.foo.Bar(x)")
    result = _run(Check(), lost, executor, samples, before=lost)
    assert result.verdict is None
    assert result.notes[0].startswith("Not checked: ONNX Runtime has no operator com.foo::Bar")


@pytest.mark.parametrize("check", [Check(metric="top1"), Check(max_drop=0.01)])
def test_a_metric_or_limit_needs_samples(check: Check, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(ConfigError, match="needs samples to measure on: give --eval or --calib"):
        _run(check, SAME, executor, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "check{metric=top5}",
            "metric=top5: expected module:function or the name of a metric; did you mean 'top1'",
        ),
        ("check{max_drop=-1}", "max_drop=-1.0: expected 0 or more"),
        ("check{max_drop=nan}", "max_drop"),
        ("check{metric=sqnr max_drop=0.1}", "max_drop does not go with metric=sqnr; give min_sqnr"),
        ("check{atol=-1}", "atol=-1.0: expected 0 or more"),
        ("check{rtol=-1}", "rtol=-1.0: expected 0 or more"),
    ],
)
def test_options_out_of_range(text: str, message: str) -> None:
    from onnxslim.errors import OptionError

    with pytest.raises(OptionError, match=message):
        from_spec(Check, parse_pipeline(text)[0])


def test_options_round_trip_as_text() -> None:
    text = "check{metric=models.metrics:exact_lines max_drop=0.01 min_sqnr=20.0}"
    check = from_spec(Check, parse_pipeline(text)[0])
    assert str(to_spec(check)) == text
    assert replace(check, max_drop=0.02).max_drop == 0.02


def test_a_metric_that_does_not_suit_shows_before_any_pass_runs(
    executor: ThreadPoolExecutor,
) -> None:
    env = Environment(Target("ort-cpu"), executor, evaluation=_samples())
    ctx = Context(env, AnalysisManager(SAME, env), SAME)
    with pytest.raises(DataError, match="metric top1: 1 predictions per sample"):
        Check(metric="top1").prepare(ctx)


def test_a_model_that_draws_random_numbers_is_told_from_a_bad_result() -> None:
    drawn = _model("r = RandomNormalLike(x) y = Add(x, r)")
    other = _model("z = Neg(x) r = RandomNormalLike(x) y = Add(z, r)")
    assert "differ from run to run" in _reasons(compare(drawn, other, _samples()))
    assert "differ from run to run" not in _reasons(_compare(_scaled(-1, -1, -1)))


def test_samples_that_are_all_the_same_are_told(executor: ThreadPoolExecutor) -> None:
    one = FeedList([{"x": X[:1]}] * 5)
    assert "All samples are the same" in " ".join(_run(Check(), SAME, executor, one).notes)
    assert not _run(Check(), SAME, executor, _samples()).notes
