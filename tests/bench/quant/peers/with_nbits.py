"""onnxruntime.quantization.matmul_nbits_quantizer: weights in blocks of 32, integer products."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main, reader

BLOCK, LEVEL = 32, 4


def _library() -> Any:
    return importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")


def _save(job: Job, config: Any, **options: Any) -> None:
    onnx: Any = importlib.import_module("onnx")
    maker = _library().MatMulNBitsQuantizer(
        onnx.load(str(job.model)), accuracy_level=LEVEL, algo_config=config, **options
    )
    maker.process()
    maker.model.save_model_to_file(str(job.out), False)


def nearest(job: Job, bits: int) -> None:
    """Round to nearest, with zero points."""
    config = _library().DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=False, accuracy_level=LEVEL, bits=bits
    )
    _save(job, config)


def hqq(job: Job) -> None:
    """Half-quadratic quantization; its zero points are floats."""
    _save(job, _library().HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4))


def k_quant(job: Job) -> None:
    """The search of llama.cpp."""
    _save(job, _library().KQuantWeightOnlyQuantConfig(), block_size=BLOCK, is_symmetric=False)


def gptq(job: Job) -> None:
    """GPTQ, with the calibration samples."""
    base = importlib.import_module("onnxruntime.quantization").CalibrationDataReader
    config = _library().GPTQWeightOnlyQuantConfig(reader(job, base), actorder=True, mse=True)
    _save(job, config, block_size=BLOCK, is_symmetric=False)


if __name__ == "__main__":
    main(
        {
            "RTN, 8 bits": partial(nearest, bits=8),
            "RTN, 4 bits": partial(nearest, bits=4),
            "HQQ, 4 bits": hqq,
            "k-quant, 4 bits": k_quant,
            "GPTQ, 4 bits": gptq,
        }
    )
