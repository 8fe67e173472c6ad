"""How far pruning reaches: 30 % of every group of every model of a folder, cut and compared.

python -m tests.bench.prune_reach FILE.onnx...

Prints a line per model: nodes, seconds of the analysis, groups, MACs and bytes of weights left, the
greatest difference from the masked original relative to the largest output, and what stays and
why. Constants are folded first, as the pass does.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, axis_map
from onnxslim.analyses.cost import cost_table
from onnxslim.analyses.seen import observed_shapes
from onnxslim.analyses.shapes import ShapeTable
from onnxslim.ir import Model
from onnxslim.passes.fold.fold import Fold
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.synthesize import synthesize
from tests.pipelines import context
from tests.pruning import cut_and_masked, difference

SHARE = 0.3
TOLERANCE = 1e-5


def macs(model: Model, feed: Feed) -> int:
    """Multiply-accumulates of one run with this feed."""
    shapes = ShapeTable(dict(ir.infer_types(model)), observed_shapes(model, feed))
    return cost_table(model, shapes).total_macs


def reasons(axes: AxisMap, most: int = 3) -> str:
    """What keeps layers from being pruned, the commonest first."""
    found = Counter(s.reason.partition(" '")[0] + s.reason.partition("'")[2] for s in axes.stuck)
    short = Counter[str]()
    for reason, count in found.items():
        short[reason.rpartition("': ")[2]] += count
    return "; ".join(f"{count} {reason}" for reason, count in short.most_common(most))


def line(path: Path) -> str:
    """One row."""
    model = ir.load(path)
    for ctx in context():
        Fold().run(model, ctx)
    feed = synthesize(model, 1, 0)[0]
    original = ir.snapshot(model)
    start = time.process_time()
    axes = axis_map(original)
    seconds = time.process_time() - start
    before = macs(original, feed), ir.weight_bytes(original)
    made = cut_and_masked(model, SHARE)
    if made is None:
        return f"{path.stem}: nothing to prune: {reasons(axes)}"
    apart = difference(*made, [feed], original)
    after = macs(model, feed), ir.weight_bytes(model)
    return (
        f"{'equal ' if apart < TOLERANCE else 'DIFFERS'} {path.stem}: {len(original.graph)} nodes, "
        f"{seconds:.2f} s, {len(axes.groups)} groups, MACs {after[0] / max(before[0], 1):.3f}, "
        f"bytes {after[1] / before[1]:.3f}, {apart:.1e}, stays: {reasons(axes)}"
    )


def main() -> None:
    """A failure is a line too."""
    for name in sys.argv[1:]:
        try:
            print(line(Path(name)), flush=True)
        except Exception as error:  # noqa: BLE001 - the table shows it
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
