"""Which of several choices the outputs suffer least from: each is made in a copy and run.

A layer's loss counts by what one disturbed run showed in the outputs. Where layers are many and
their outputs add up, as in a decoder, that is to be believed as it is; where it rests on little,
its root serves better, which stands between that and counting all layers alike. Samples held out
say which it is, each as one however long it is; a model too large to be cut twice has many layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim import ir
from onnxslim.analyses.distance import errors_to
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.settle import Settled, emit_into
from onnxslim.passes.lowrank.survey import held_out
from onnxslim.passes.lowrank.table_write import write_table
from onnxslim.passes.lowrank.tables import twin_table
from onnxslim.pipeline.base import Context
from onnxslim.runtime.samples import Feed, FeedList, Samples
from onnxslim.runtime.session import open_session
from onnxslim.runtime.sources import size_of

_SAMPLES = 64
_BYTES = 256 << 20  # of outputs that are kept to compare with


def can_judge(ctx: Context) -> bool:
    """Whether samples are held out."""
    return _held(ctx) is not None


def _held(ctx: Context) -> Samples | None:
    return None if ctx.env.calib is None else held_out(ctx.env.calib)[1]


def least_error(model: Model, ctx: Context, made: Sequence[Settled]) -> int:
    """The number of the choice whose outputs are nearest to the model's on samples held out; the
    first where none are or nothing can be compared.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    held = _held(ctx)
    if held is None or len(made) < 2:
        return 0
    feeds, wanted = _wanted(model, held, ctx.env.threads)
    errors: list[float] = []
    for number, settled in enumerate(made):
        ctx.env.progress("trying choices", number, len(made))
        apart = errors_to(wanted, _with(model, settled), feeds, ctx.env.threads)
        errors.append(float("inf") if apart is None else float(apart.mean()))
    return min(range(len(errors)), key=lambda n: errors[n])


def _wanted(model: Model, held: Samples, threads: int) -> tuple[FeedList, list[dict[str, Array]]]:
    """As many samples as are needed and have room, and the outputs for each."""
    session = open_session(model, threads=threads)
    feeds: list[Feed] = []
    wanted: list[dict[str, Array]] = []
    for feed in held.take(range(min(len(held), _SAMPLES))):
        feeds.append(feed)
        wanted.append(session.run(feed))
        if sum(map(size_of, wanted)) > _BYTES:
            break
    return FeedList(feeds), wanted


def _with(model: Model, settled: Settled) -> Model:
    copy = ir.snapshot(model)
    emit_into(copy, settled.decisions)
    editor = Editor(copy)
    for table, part in settled.tables:
        write_table(editor, twin_table(copy, table), part)
    editor.remove_dead()
    return copy
