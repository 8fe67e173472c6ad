"""Runs a quantized model with OpenVINO on the CPU: in which type each layer ran, and how close it
comes to ONNX Runtime on the same file.

    python tests/bench/openvino_run.py MODEL.onnx FLOAT.onnx SAMPLES.npz

in an environment with openvino, onnxruntime and numpy. Prints JSON and exits with 1 where no layer
runs in 8 bits, or where OpenVINO is further from ONNX Runtime than quantization is from the float
model.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from typing import Any

import numpy as np

LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "GroupConvolution")
EIGHT_BITS = ("u8", "i8")


def samples(path: str, count: int = 64) -> list[dict[str, Any]]:
    """The first samples of a file of inputs, one by one."""
    with np.load(path) as arrays:
        inputs = {name: arrays[name] for name in arrays.files if name != "label"}
    return [{name: rows[i : i + 1] for name, rows in inputs.items()} for i in range(count)]


def precisions(compiled: Any) -> Counter[str]:
    """How many layers ran in each type, by the runtime graph's own account."""
    found: Counter[str] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        kind, precision = (str(info[key].value) for key in ("layerType", "runtimePrecision"))
        if kind in LAYERS:
            found[f"{kind}:{precision}"] += 1
    return found


def db(exact: list[Any], other: list[Any]) -> float:
    """Signal to noise over all numbers, in dB."""
    signal = sum(float((a.astype(np.float64) ** 2).sum()) for a in exact)
    noise = sum(
        float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(exact, other, strict=True)
    )
    return 10 * float(np.log10(signal / max(noise, 1e-30)))


def compare(quantized: str, original: str, data: str) -> dict[str, Any]:
    """Both runtimes on the quantized file, and ONNX Runtime on the float one."""
    ort, openvino = (importlib.import_module(name) for name in ("onnxruntime", "openvino"))
    options = ort.SessionOptions()  # Q and DQ one by one: sums of fused kernels may saturate here
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session, plain = (ort.InferenceSession(path, options) for path in (quantized, original))
    names = [given.name for given in session.get_inputs()]
    feeds = [{name: feed[name] for name in names} for feed in samples(data)]
    compiled = openvino.Core().compile_model(
        quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    theirs = [next(iter(compiled(feed).values())) for feed in feeds]
    ours = [session.run(None, feed)[0] for feed in feeds]
    exact = [plain.run(None, feed)[0] for feed in feeds]
    return {
        "openvino": openvino.__version__,
        "layers": dict(precisions(compiled)),
        "openvino_to_onnxruntime_db": round(db(ours, theirs), 2),
        "quantized_to_float_db": round(db(exact, ours), 2),
        "openvino_to_float_db": round(db(exact, theirs), 2),
    }


def main() -> int:
    """The comparison as JSON; the exit status says whether it holds."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    result = compare(*sys.argv[1:])
    print(json.dumps(result, indent=1))
    eight = any(key.endswith(EIGHT_BITS) for key in result["layers"])
    close = result["openvino_to_onnxruntime_db"] > result["quantized_to_float_db"]
    return 0 if eight and close else 1


if __name__ == "__main__":
    sys.exit(main())
