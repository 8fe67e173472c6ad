"""onnxruntime.quantization: static and dynamic, after its own preparation."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from tests.bench.quant.peers.common import Job, main, reader

_HEAVY = ["Conv", "MatMul", "Gemm"]


def _library() -> Any:
    return importlib.import_module("onnxruntime.quantization")


def defaults(job: Job) -> None:
    """Signed activations and weights, one scale per tensor."""
    ort = _library()
    ready = job.prepared(job.model)
    ort.quantize_static(str(ready), str(job.out), reader(job, ort.CalibrationDataReader))


def guided(
    job: Job,
    operators: list[str] | None = None,
    *,
    reduced: bool = False,
    as_given: bool = False,
) -> None:
    """Unsigned activations, signed weights, one scale per channel: the guide's advice for VNNI;
    with a reduced range, weights of 7 bits, that for machines without it. A model `as_given` needs
    no preparation."""
    ort = _library()
    ready = job.model if as_given else job.prepared(job.at_opset())
    ort.quantize_static(
        str(ready),
        str(job.out),
        reader(job, ort.CalibrationDataReader),
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=operators,
        reduce_range=reduced,
    )


def dynamic(job: Job, operators: list[str] | None = None) -> None:
    """Ranges found while the model runs."""
    ready = job.prepared(job.model)
    _library().quantize_dynamic(str(ready), str(job.out), op_types_to_quantize=operators)


if __name__ == "__main__":
    main(
        {
            "S8S8": defaults,
            "U8S8 per channel": guided,
            "U8S8 per channel, as given": partial(guided, as_given=True),
            "U8S8 per channel, reduced range": partial(guided, reduced=True),
            "U8S8 per channel, Conv MatMul Gemm": partial(guided, operators=_HEAVY),
            "dynamic": dynamic,
            "dynamic, MatMul": partial(dynamic, operators=["MatMul"]),
        }
    )
