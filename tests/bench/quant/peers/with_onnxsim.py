"""onnxsim: its simplification, then its static quantization of few or all operators."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main


def static(job: Job, *, full: bool = False) -> None:
    """All operators need opset 13."""
    onnx: Any = importlib.import_module("onnx")
    onnxsim: Any = importlib.import_module("onnxsim")
    source = job.at_opset() if full else job.model
    model, _ = onnxsim.simplify(onnx.load(str(source)))
    done = onnxsim.quantize_static(model, list(job.feeds()), full_graph=full)
    onnx.save(done, str(job.out))


if __name__ == "__main__":
    main({"static": static, "static, full graph": partial(static, full=True)})
