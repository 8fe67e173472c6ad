"""Collecting ranges holds nothing of a sample: many take the memory of a few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARGIN = 32  # MB; the samples have 4 MB each, and three inner tensors of that size

SCRIPT = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from onnxslim import ir
from onnxslim.analyses.layer_ranges import LayerRanges
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.targets.base import Target

class Many(Samples):
    def __len__(self): return int(sys.argv[1])
    def __getitem__(self, i):
        return {"x": np.random.default_rng(i).random((1, 16, 256, 256), np.float32)}

model = ir.parse_text('<ir_version: 10, opset_import: ["" : 21]>'
    'g (float[1, 16, 256, 256] x) => (float y) { a = Neg (x) b = Relu (a) c = Neg (b)'
    ' y = ReduceMax <keepdims = 0> (c) }')
with ThreadPoolExecutor(1) as executor:
    env = Environment(Target("t"), executor, calib=Many())
    found = AnalysisManager(model, env).get(LayerRanges(("x", "a", "b", "c"), outputs=4))
assert len(found.tensors) == 4 and len(found.outputs) == 4
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_the_peak_does_not_grow_with_the_samples() -> None:
    few, many = (
        float(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, str(count)],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout
        )
        for count in (4, 80)
    )
    assert many < few + MARGIN
