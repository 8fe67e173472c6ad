"""Collecting statistics takes the memory it says, whatever the samples take together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARGIN = 160  # MB: ONNX Runtime's own activations of one call, its session, and BLAS buffers

SCRIPT = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import onnxruntime
from onnxslim import ir
from onnxslim.analyses.layer_stats import LayerStats, Tap, Window
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.targets.base import Target

class Many(Samples):
    def __len__(self): return 16
    def __getitem__(self, i):
        return {"x": np.random.default_rng(i).normal(size=(1, 16, 256, 256)).astype(np.float32)}

body = " ".join(f"a{i + 1} = Relu (a{i})" for i in range(20))
model = ir.parse_text('<ir_version: 10, opset_import: ["" : 21]>'
    'g (float[N, 16, 256, 256] x) => (float y) { a0 = Neg (x) ' + body +
    ' y = ReduceMax <keepdims = 0> (a20) }')
window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
taps = tuple(Tap(f"a{i}", window) for i in range(20))
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with ThreadPoolExecutor(1) as executor:
    env = Environment(Target("t"), executor, calib=Many())
    before = peak()
    request = LayerStats((), taps, budget=int(sys.argv[1]) << 20)
    found = AnalysisManager(model, env).get(request)
assert len(found.moments) == 20
print(peak() - before)
"""


def test_peak_is_the_budget_and_what_the_model_needs() -> None:
    """The 20 tensors watched have 84 MB for one sample, and 1.3 GB for all of them."""
    for budget in (64, 256):
        peak = float(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, str(budget)],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout
        )
        assert peak < budget + MARGIN
