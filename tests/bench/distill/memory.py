"""What training takes in memory: a model taught to undo noise on its own weights, a few steps.

python -m tests.bench.peak OUT.json python -m tests.bench.distill.memory MODEL.onnx [--steps 3]

The numbers in the samples are random: nothing is said of accuracy. Needs torch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.distill.distill import Distill
from onnxslim.runtime.synthesize import synthesize
from tests.bench.distill.run import teach

SAMPLES = 160
NOISE = 0.01  # of the deviation of a tensor


def noisy(model: Model) -> Model:
    """The model with noise on all weights."""
    student, rng = ir.snapshot(model), np.random.default_rng(0)
    editor = Editor(student)
    for value in list(student.graph.initializers.values()):
        array = ir.array(value)
        if array is not None and array.dtype == np.float32 and array.ndim > 1:
            noise = NOISE * array.std() * rng.standard_normal(array.shape)
            editor.replace_initializer(value, (array + noise).astype(np.float32))
    return student


def main() -> None:
    """Train, and print the time and the number of weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    teacher = ir.load(asked.model)
    student = noisy(teacher)
    arrays = [ir.array(value) for value in student.graph.initializers.values()]
    count = sum(array.size for array in arrays if array is not None)
    options = Distill(level="model", steps=asked.steps, batch=asked.batch, rate=1e-5)
    start = time.perf_counter()
    done = teach(teacher, student, synthesize(teacher, SAMPLES), options)
    print(f"{count / 1e6:.1f} M weights, {time.perf_counter() - start:.0f} s: {dict(done.stats)}")


if __name__ == "__main__":
    main()
