"""AIMET-ONNX: a simulated model with computed encodings, written with Q/DQ."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main


def quantize(job: Job, *, equalize: bool = False) -> None:
    """8 bits for weights and activations, min-max."""
    aimet: Any = importlib.import_module("aimet_onnx")
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(str(job.at_opset()))
    samples = list(job.feeds())
    if equalize:
        importlib.import_module("aimet_onnx.cross_layer_equalization").equalize_model(model)
    else:
        fold: Any = importlib.import_module("aimet_onnx.batch_norm_fold")
        fold.fold_all_batch_norms_to_weight(model)
    simulated = aimet.QuantizationSimModel(
        model,
        param_type=aimet.int8,
        activation_type=aimet.int8,
        quant_scheme="min_max",
        dummy_input=samples[0],
    )
    simulated.compute_encodings(samples)
    done = simulated.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
    onnx.save(done, str(job.out))


if __name__ == "__main__":
    main({"W8A8": quantize, "W8A8, equalized": partial(quantize, equalize=True)})
