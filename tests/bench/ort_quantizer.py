"""`onnxruntime.quantization.quantize_static` with the settings its guide gives for x64.

U8S8, per channel, full range (the guide's advice with VNNI), after its own pre-processing and,
since scales per channel need it, after a conversion to opset 17 where the model is older.

python -m tests.bench.ort_quantizer IN OUT --calib X --operators all|heavy [--prepared]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnx  # noqa: TID251 - the peer works on ONNX files, not on our IR
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_static,  # pyright: ignore[reportUnknownVariableType] - untyped there
)
from onnxruntime.quantization.shape_inference import (
    quant_pre_process,  # pyright: ignore[reportUnknownVariableType] - untyped there
)

from models.samples import read_samples

OPSET = 17
HEAVY = ["Conv", "MatMul", "Gemm"]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples one after the other."""

    def __init__(self, calib: Path) -> None:
        self._feeds = (feeds for feeds, _ in read_samples(calib))

    def get_next(self) -> Any:
        """The next feed, or None at the end."""
        return next(self._feeds, None)


def prepare(model: Path, folder: Path) -> Path:
    """The model at opset 17 or above, pre-processed as the guide says."""
    converted, ready = folder / "converted.onnx", folder / "ready.onnx"
    proto = onnx.load(model)
    if max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < OPSET:
        proto = onnx.version_converter.convert_version(proto, OPSET)
    onnx.save(proto, converted)
    try:
        quant_pre_process(str(converted), str(ready))
    except Exception:  # noqa: BLE001 - symbolic shape inference gives up with a bare Exception
        print("quant_pre_process failed; again without symbolic shape inference")
        quant_pre_process(str(converted), str(ready), skip_symbolic_shape=True)
    return ready


def main() -> None:
    """Quantize one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--operators", choices=("all", "heavy"), required=True)
    parser.add_argument("--prepared", action="store_true", help="the model needs no preparation")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(
            str(asked.model if asked.prepared else prepare(asked.model, Path(folder))),
            str(asked.out),
            Reader(asked.calib),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=False,
            op_types_to_quantize=HEAVY if asked.operators == "heavy" else None,
        )


if __name__ == "__main__":
    main()
