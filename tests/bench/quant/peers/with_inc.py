"""onnx-neural-compressor (Intel): static in both forms, SmoothQuant, dynamic."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main, reader


def static(job: Job, *, pairs: bool = False, smooth: bool = False) -> None:
    """Quantized operators, or Q/DQ pairs with one scale per channel."""
    inc: Any = importlib.import_module("onnx_neural_compressor.quantization")
    config: Any = importlib.import_module("onnx_neural_compressor.quantization.config")
    data: Any = importlib.import_module("onnx_neural_compressor.data_reader")
    options: dict[str, Any] = {}
    if pairs:
        options = {"quant_format": inc.QuantFormat.QDQ, "per_channel": True}
    if smooth:
        options["extra_options"] = {"SmoothQuant": True}
    chosen = config.StaticQuantConfig(reader(job, data.CalibrationDataReader), **options)
    inc.quantize(str(job.at_opset()), str(job.out), chosen)


def dynamic(job: Job) -> None:
    """Ranges found while the model runs."""
    inc: Any = importlib.import_module("onnx_neural_compressor.quantization")
    config: Any = importlib.import_module("onnx_neural_compressor.quantization.config")
    inc.quantize(str(job.at_opset()), str(job.out), config.DynamicQuantConfig())


if __name__ == "__main__":
    main(
        {
            "static": static,
            "static, Q/DQ": partial(static, pairs=True),
            "SmoothQuant": partial(static, smooth=True),
            "dynamic": dynamic,
        }
    )
