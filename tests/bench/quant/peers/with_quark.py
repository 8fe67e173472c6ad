"""AMD Quark for ONNX: its named configurations."""

from __future__ import annotations

import copy
import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main, reader

_ADAROUND = {"NumIterations": 100, "DataSize": 64, "BatchSize": 8}  # of 1000: minutes, not an hour


def quantize(job: Job, name: str, *, equalize: bool = False) -> None:
    """With the configuration of that name; equalization is across layers."""
    quark: Any = importlib.import_module("quark.onnx")
    named: Any = importlib.import_module("quark.onnx.quantization.config.custom_config")
    settings: Any = importlib.import_module("quark.onnx.quantization.config.config")
    ort: Any = importlib.import_module("onnxruntime.quantization")
    if name == "default":
        name = "INT8_TRANSFORMER_DEFAULT_CONFIG" if job.transformer else "INT8_CNN_DEFAULT_CONFIG"
    chosen = copy.deepcopy(getattr(named, name))
    chosen.include_cle = equalize
    if "FastFinetune" in chosen.extra_options:
        chosen.extra_options["FastFinetune"].update(_ADAROUND)
    quantizer = quark.ModelQuantizer(settings.Config(global_quant_config=chosen))
    source, samples = job.at_opset(), reader(job, ort.CalibrationDataReader)
    quantizer.quantize_model(str(source), str(job.out), samples)


if __name__ == "__main__":
    main(
        {
            "default": partial(quantize, name="default"),
            "U8S8": partial(quantize, name="U8S8_AAWS_CONFIG"),
            "U8S8, equalized": partial(quantize, name="U8S8_AAWS_CONFIG", equalize=True),
            "U8S8, AdaRound": partial(quantize, name="U8S8_AAWS_ADAROUND_CONFIG", equalize=True),
        }
    )
