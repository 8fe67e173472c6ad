"""Running passes: order, snapshots, instruments, the guard, and every way to fail."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import DataError, OnnxSlimError, OutputError, PassError, RuntimeUnavailable
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Analysis, AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Declined, Environment, Pass, PassResult
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Announce, Dump, Instrument, Verify
from onnxslim.pipeline.manager import Stage, run_passes
from onnxslim.pipeline.reproducer import Reproducer
from onnxslim.pipeline.stopwatch import Comparison
from onnxslim.targets import get_target

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { t = Relu(x)  y = Neg(t) }
"""


@dataclass(frozen=True, kw_only=True)
class Do(Pass):
    """Runs any function as a pass."""

    name: ClassVar[str] = "do"
    guarded: ClassVar[bool] = True
    what: Callable[[Model, Context], PassResult] = field(default=lambda m, c: PassResult())
    label: str = "x"

    def run(self, model: Model, ctx: Context) -> PassResult:
        return self.what(model, ctx)


@dataclass(frozen=True, kw_only=True)
class Inlining(Do):
    """The same without functions."""

    inlines: ClassVar[bool] = True


def rename(model: Model, ctx: Context) -> PassResult:
    """Changes the model for real."""
    for node in model.graph:
        node.name = f"{node.name}_again"
    return PassResult(changed=Aspect.STRUCTURE, stats={"renamed": 2})


def raising(error: BaseException) -> Do:
    def fail(model: Model, ctx: Context) -> PassResult:
        raise error

    return Do(what=fail, label="bad")


@pytest.fixture
def model() -> Model:
    model = ir.parse_text(TEXT)
    for node in model.graph:
        node.name = node.op_type
    return model


@pytest.fixture
def ctx(model: Model) -> Iterator[Context]:
    with ThreadPoolExecutor(1) as executor:
        yield context_of(model, executor)


def context_of(model: Model, executor: ThreadPoolExecutor) -> Context:
    env = Environment(get_target("ort-cpu"), executor)
    return Context(env, AnalysisManager(model, env), ir.snapshot(model))


def names(model: Model) -> list[str | None]:
    return [node.name for node in model.graph]


def test_passes_run_in_order_and_see_those_before(model: Model, ctx: Context) -> None:
    seen: list[list[str]] = []

    def look(model: Model, ctx: Context) -> PassResult:
        seen.append([getattr(p, "label", "") for p in ctx.applied])
        return PassResult()

    stages = run_passes(model, [Do(what=look, label=c) for c in "abc"], ctx)
    assert seen == [[], ["a"], ["a", "b"]]
    assert [s.result for s in stages] == [PassResult()] * 3
    assert all(s.seconds >= 0 and s.peak_mb is not None and s.peak_mb > 1 for s in stages)


def test_a_state_is_kept_after_each_pass(model: Model, ctx: Context) -> None:
    before = names(model)
    idle, first, second = run_passes(model, [Do(), Do(what=rename), Do(what=rename)], ctx)
    assert idle.model is ctx.original
    assert names(ctx.original) == before
    assert names(first.model) == [f"{n}_again" for n in before]
    assert names(second.model) == names(model) == [f"{n}_again_again" for n in before]
    assert second.model is not model


@pytest.mark.parametrize("error", [ValueError("ours"), DataError("the user's")])
def test_a_model_is_never_left_half_edited(model: Model, ctx: Context, error: Exception) -> None:
    def edit_and_fail(model: Model, ctx: Context) -> PassResult:
        model.graph.remove(model.graph[0], safe=False)
        raise error

    before = names(model)
    with pytest.raises(OnnxSlimError):
        run_passes(model, [Do(what=rename), Do(what=edit_and_fail)], ctx)
    assert names(model) == [f"{n}_again" for n in before]
    ir.verify(model)


class Counted(Analysis[int]):
    reads = Aspect.STRUCTURE
    computed = 0

    def compute(self, model: Model, analyses: AnalysisManager) -> int:
        Counted.computed += 1
        return len(model.graph)


def test_what_a_pass_changed_is_forgotten(model: Model, ctx: Context) -> None:
    question = Counted()

    def ask(changed: Aspect) -> Do:
        def run(model: Model, ctx: Context) -> PassResult:
            ctx.analyses.get(question)
            return PassResult(changed=changed)

        return Do(what=run)

    start = Counted.computed
    run_passes(model, [ask(a) for a in (Aspect.WEIGHTS, Aspect.STRUCTURE, Aspect.NONE)], ctx)
    assert Counted.computed - start == 2


def test_a_pass_that_lies_about_changing_nothing_is_found_out(model: Model, ctx: Context) -> None:
    def lie(model: Model, ctx: Context) -> PassResult:
        rename(model, ctx)
        return PassResult()

    with pytest.raises(PassError, match="says that it changed nothing, but the model differs"):
        run_passes(model, [Do(what=lie)], ctx, [Verify()])


def test_an_invalid_model_is_a_bug_of_the_pass(model: Model, ctx: Context) -> None:
    def break_it(model: Model, ctx: Context) -> PassResult:
        model.graph[1].op_type = "NoSuchOperator"
        return PassResult(changed=Aspect.ALL)

    with pytest.raises(PassError, match=r"it left an invalid model: .*NoSuchOperator"):
        run_passes(model, [Do(what=break_it)], ctx, [Verify()])


def test_a_bug_leaves_a_reproducer(model: Model, ctx: Context, tmp_path: Path) -> None:
    passes = [Do(what=rename), raising(IndexError("oops")), Do(label="rest")]
    with pytest.raises(PassError) as caught:
        run_passes(model, passes, ctx, [Reproducer(tmp_path)])
    (folder,) = tmp_path.iterdir()
    message = str(caught.value)
    assert message.startswith("pass 'do{")
    assert "IndexError: oops" in message
    assert message.endswith(f"reproducer: {folder}")
    assert isinstance(caught.value.__cause__, IndexError)
    assert names(ir.load(folder / "model.onnx")) == names(model)
    assert (folder / "pipeline.txt").read_text().count("label=") == 2
    assert "IndexError: oops" in (folder / "traceback.txt").read_text()
    assert "onnx-ir " in (folder / "versions.txt").read_text()


def test_a_reproducer_that_cannot_be_written_says_so(
    model: Model, ctx: Context, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassError, match=r"oops; the reproducer could not be written: .*file"):
        run_passes(model, [raising(IndexError("oops"))], ctx, [Reproducer(tmp_path / "file")])


@pytest.mark.parametrize(
    "error", [DataError("no samples"), MemoryError(), KeyboardInterrupt(), SystemExit(143)]
)
def test_what_is_no_bug_passes_through(
    model: Model, ctx: Context, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        run_passes(model, [raising(error)], ctx, [Reproducer(tmp_path)])
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_bug(model: Model, ctx: Context, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match=r"do: .*No space left"):
        run_passes(model, [raising(full)], ctx, [Reproducer(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_other_system_errors_are_bugs(model: Model, ctx: Context) -> None:
    with pytest.raises(PassError, match="failed after no other pass: FileNotFoundError"):
        run_passes(model, [raising(FileNotFoundError("gone"))], ctx)


def test_instruments_swallow_nothing(model: Model, ctx: Context) -> None:
    class Broken(Instrument):
        def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
            raise RuntimeError("the instrument broke")

    with pytest.raises(PassError, match="RuntimeError: the instrument broke"):
        run_passes(model, [Do()], ctx, [Broken()])


def test_dump_and_announce(model: Model, ctx: Context, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    env = Environment(
        ctx.env.target, ctx.env.executor, progress=lambda what, i, n: told.append((what, i, n))
    )
    now = Context(env, ctx.analyses, ctx.original)
    run_passes(model, [Do(), Do(what=rename)], now, [Announce(2), Dump(tmp_path / "d")])
    assert told == [("do", 0, 2), ("do", 1, 2)]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["01-do.onnx", "02-do.onnx"]
    assert names(ir.load(tmp_path / "d" / "02-do.onnx")) == names(model)


def timed(before: float, after: float, noise: float = 0.02) -> Guard:
    ratio = after / before

    def stopwatch(one: Model, other: Model, env: Environment) -> Comparison:
        return Comparison(before, after, ratio, noise, ratio > 1 + noise)

    return Guard(stopwatch)


def guarded(model: Model, ctx: Context, guard: Guard) -> Stage:
    def slow(model: Model, ctx: Context) -> PassResult:
        result = rename(model, ctx)
        declined = (Declined("n", "too small"),)
        return PassResult(result.changed, result.stats, declined, notes=("all are changed",))

    (stage,) = run_passes(model, [Do(what=slow)], ctx, [Verify()], guard)
    return stage


def test_a_slower_result_is_undone_and_says_so(model: Model, ctx: Context) -> None:
    before = names(model)
    stage = guarded(model, ctx, timed(2.0, 3.0))
    assert names(model) == names(stage.model) == before
    assert not stage.kept
    assert not stage.result.changed
    whole, own = stage.result.declined
    assert whole.node == "whole model"
    assert whole.reason.startswith("undone: a run takes 1.50 times as long as before (2 ms)")
    assert own == Declined("n", "too small")
    assert stage.result.notes == ()  # they tell of what is gone


@pytest.mark.parametrize("after", [1.0, 2.0, 2.04])
def test_faster_or_within_the_noise_is_kept(model: Model, ctx: Context, after: float) -> None:
    before = names(model)
    stage = guarded(model, ctx, timed(2.0, after))
    assert stage.kept
    assert names(model) == [f"{n}_again" for n in before]


def test_an_undone_pass_counts_as_not_applied(model: Model, ctx: Context) -> None:
    seen: list[int] = []

    def look(model: Model, ctx: Context) -> PassResult:
        seen.append(len(ctx.applied))
        return PassResult()

    run_passes(model, [Do(what=rename), Do(what=look)], ctx, (), timed(1.0, 2.0))
    assert seen == [0]


def test_what_cannot_be_timed_is_kept_with_a_note(model: Model, ctx: Context) -> None:
    def fail(*_: object) -> Comparison:
        raise RuntimeUnavailable("no such operator")

    stage = guarded(model, ctx, Guard(fail))
    assert stage.kept
    assert stage.result.notes[1:] == ("whether it is faster was not measured: no such operator",)


def test_a_pass_may_choose_what_it_is_timed_on(model: Model, ctx: Context) -> None:
    """And where the models cannot run that, a sample is taken."""
    seen: list[float] = []

    def stopwatch(one: Model, other: Model, env: Environment) -> Comparison:
        if env.calib is None:
            return Comparison(1.0, 2.0, 2.0, 0.02, True)
        seen.append(float(env.calib[0]["x"][0]))
        if seen[-1] < 0:
            raise RuntimeUnavailable("does not fit")
        return Comparison(1.0, 1.0, 1.0, 0.02, False)

    for number, kept in ((7.0, True), (-1.0, False)):

        def choose(model: Model, ctx: Context, number: float = number) -> PassResult:
            result = rename(model, ctx)
            return replace(result, timed_on={"x": np.array([number])})

        twin = ir.snapshot(model)
        (stage,) = run_passes(twin, [Do(what=choose)], ctx, [Verify()], Guard(stopwatch))
        assert stage.kept is kept
    assert seen == [7.0, -1.0]


def test_user_errors_are_a_family_of_their_own() -> None:
    assert issubclass(PassError, OnnxSlimError)
    assert (PassError.exit_code, DataError.exit_code) == (70, 1)


CALLS = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
net (float[N,4] x) => (float[N,4] y) { a = local.block (x) y = local.block (a) }
<domain: "local", opset_import: ["" : 17]>
block (u) => (v) { t = Relu (u) v = Neg (t) }
"""


def operators(model: Model) -> list[str]:
    return [ir.op(node) for node in model.graph]


def test_a_pass_may_have_functions_inlined_first() -> None:
    model = ir.parse_text(CALLS)
    seen: list[str] = []

    def look(model: Model, ctx: Context) -> PassResult:
        seen.extend(operators(model))
        return rename(model, ctx)

    with ThreadPoolExecutor(1) as executor:
        ctx = context_of(model, executor)
        stages = run_passes(model, [Inlining(what=look)], ctx, [Verify()])
    assert seen == operators(model) == ["Relu", "Neg", "Relu", "Neg"]
    assert not model.functions
    assert stages[0].result.notes == (
        "do put what functions hold in place of the 2 nodes that call them",
    )
    ir.verify(model)


def test_functions_stay_where_the_pass_changes_nothing() -> None:
    model = ir.parse_text(CALLS)
    with ThreadPoolExecutor(1) as executor:
        ctx = context_of(model, executor)
        stages = run_passes(model, [Inlining()], ctx, [Verify()])
    assert operators(model) == ["local::block", "local::block"]
    assert len(model.functions) == 1
    assert not stages[0].result.notes
