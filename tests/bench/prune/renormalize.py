"""BatchNorm statistics estimated anew beside the refit that the pass does.

python -m tests.bench.prune.renormalize [--models a,b] [--out docs/PRUNE_NORM.md]

A folded BatchNorm whose mean and variance are estimated anew is a scale and an offset per channel,
with which a layer's outputs have the mean and variance that they had before pruning (Jordan et al.
2022, REPAIR). The refit of all weights to the original outputs contains that as a special case.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.batchnorm import fuse_batchnorm
from onnxslim.passes.prune.choose import Chooser, Chosen, Rules
from onnxslim.passes.prune.compensate import compensate, give_biases, sliced, spots
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.refit.refit import refit
from onnxslim.passes.refit.spot import spots_of
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.samples import FeedList, Samples
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.bench.cases import load_case
from tests.bench.quant.measure import score
from tests.bench.table import machine

RATIOS = {"fashion_vgg": 0.5, "fashion_resnet": 0.6}
HEAD = ("network", "after the cut", "metric", "SQNR dB")
WAYS = ("none", "BatchNorm statistics", "refit", "BatchNorm statistics, then refit")
_SAMPLES = 128
INTRO = """# BatchNorm statistics estimated anew, or layers fitted again

Written by `python -m tests.bench.prune.renormalize --out docs/PRUNE_NORM.md`. The same cut,
repaired in closed form before it, and then in one of four ways; metric and SQNR on evaluation
samples.
"""


def renormalize(reference: Model, model: Model, names: list[str], env: Environment) -> None:
    """Give the outputs of layers the mean and variance of the reference's, one after the other."""
    assert env.calib is not None
    samples = env.calib.take(range(0, len(env.calib), max(1, len(env.calib) // _SAMPLES)))
    for name in names:
        for spot in spots_of(model, [name]):
            offset = spot.offset()
            if offset is None or spot.holder is None:
                continue
            (mean, spread), (own_mean, own_spread) = (
                _channels(each, name, samples) for each in (reference, model)
            )
            scale = np.where(own_spread > 1e-8, spread / np.maximum(own_spread, 1e-8), 1.0)
            content = spot.content(scale * (offset - own_mean) + mean)
            matrix = spot.layer.matrix().astype(np.float64)
            factors = scale.reshape(matrix.shape[0], -1, 1)
            if content is not None:
                editor, layer = Editor(model), spot.layer
                weight = editor.unshare(layer.node, layer.weight_index)
                editor.replace_initializer(weight, layer.from_matrix(matrix * factors))
                editor.replace_initializer(editor.unshare(spot.holder, spot.index), content)


def _channels(model: Model, name: str, samples: Samples) -> tuple[ir.Array, ir.Array]:
    """Mean and standard deviation of each channel of a value [1, C, ...]."""
    session = open_session(model, extra_outputs=[name])
    rows: list[ir.Array] = []
    for feed in samples:
        found = session.run(feed, [name])[name]
        rows.append(found.reshape(found.shape[1], -1).astype(np.float64))
    together = np.concatenate(rows, axis=1)
    return np.asarray(together.mean(axis=1)), np.asarray(together.std(axis=1))


def prepared(path: Path, ratio: float, env: Environment) -> tuple[Model, Model, Chosen]:
    """The reference, the model cut and compensated, and what was chosen."""
    model = ir.load(path)
    editor = Editor(model)
    fuse_batchnorm(editor)
    editor.remove_dead()
    reference = ir.snapshot(model)
    give_biases(editor)
    ctx = Context(env, AnalysisManager(model, env), reference)
    chosen = Chooser(Rules("ratio", ratio), model, ctx, {}).choose(model)
    compensate(editor, chosen.axes, chosen.removed, chosen.evidence, env.executor)
    sliced(reference, chosen.axes, chosen.removed, spots(chosen.axes))
    cut(editor, chosen.axes, chosen.removed)
    editor.remove_dead()
    return reference, model, chosen


def rows(name: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """The cells of a line for each way."""
    case = load_case(name)
    images = np.load(case.calib)["input"]
    with ThreadPoolExecutor(2) as executor:
        calib = FeedList([{"input": image[None]} for image in images])
        env = Environment(get_target("ort-cpu"), executor, calib=calib, threads=2)
        reference, cut_model, chosen = prepared(case.model, RATIOS[name], env)
        names = spots(chosen.axes)
        for way in WAYS:
            model = ir.snapshot(cut_model)
            if way.startswith("BatchNorm"):
                renormalize(reference, model, names, env)
            if way.endswith("refit"):
                refit(reference, model, names, env)
            path = folder / "made.onnx"
            ir.save(model, path)
            found = score(case, path)
            yield name, way, f"{found['metric']:.4f}", f"{found['sqnr_db']:.2f}"


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """The table, and where it was measured."""
    table = [HEAD, ("---",) * len(HEAD), *lines]
    about = ", ".join(f"{k} {v}" for k, v in machine().items())
    return "\n".join([INTRO, *(f"| {' | '.join(line)} |" for line in table), "", about, ""])


def main() -> None:
    """Measure, print and write, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(RATIOS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = asked.models.split(",")
    lines = [] if asked.out is None else _earlier(asked.out, names)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for line in rows(name, Path(folder)):
                print(*line, sep=" | ", flush=True)
                lines.append(line)
                if asked.out is not None:
                    asked.out.write_text(markdown(lines), encoding="utf-8")


def _earlier(out: Path, repeated: Sequence[str]) -> list[tuple[str, ...]]:
    """The lines of a file about other networks."""
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    found = [tuple(line.strip("| ").split(" | ")) for line in text.splitlines()]
    return [cells for cells in found if cells[0] in RATIOS and cells[0] not in repeated]


if __name__ == "__main__":
    main()
