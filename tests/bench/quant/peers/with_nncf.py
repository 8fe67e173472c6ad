"""NNCF: nncf.quantize, also on a prepared model, as it does not fold BatchNormalization."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main


def quantize(job: Job, *, prepare: bool = True, fast: bool = True) -> None:
    """Its default preset; `model_type` as its guide asks for attention."""
    nncf: Any = importlib.import_module("nncf")
    onnx: Any = importlib.import_module("onnx")
    source = job.prepared(job.at_opset()) if prepare else job.model
    kind = nncf.ModelType.TRANSFORMER if job.transformer else None
    done = nncf.quantize(
        onnx.load(str(source)),
        nncf.Dataset(list(job.feeds())),
        fast_bias_correction=fast,
        model_type=kind,
    )
    onnx.save(done, str(job.out))


if __name__ == "__main__":
    main(
        {
            "as given": partial(quantize, prepare=False),
            "prepared": quantize,
            "prepared, full bias correction": partial(quantize, fast=False),
        }
    )
