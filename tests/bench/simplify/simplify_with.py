"""One simplifier, one file, one process: `python simplify_with.py TOOL IN OUT`.

A script that needs nothing but the tool: it runs in the environment of the peers as well as in
ours. Each tool is called as its documentation does it; none checks its result by running it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

LIMIT_S = 300  # a tool that takes longer is ended
_MOST_INLINE = 1_900_000_000  # protobuf takes no message of two gigabytes


def _onnxslim(source: str, out: str) -> None:
    # ours or the one of the package index: the call is the same
    _the("onnxslim").slim(source, out)


def _onnxsim(source: str, out: str) -> None:
    model, _ = _the("onnxsim").simplify(source)
    _save(model, source, out)


def _onnxoptimizer(source: str, out: str) -> None:
    onnx, optimizer = _the("onnx"), _the("onnxoptimizer")
    passes = optimizer.get_fuse_and_elimination_passes()
    _save(optimizer.optimize(onnx.load(source), passes, fixed_point=True), source, out)


def _onnxscript(source: str, out: str) -> None:
    onnx, optimizer = _the("onnx"), _the("onnxscript.optimizer")
    _save(optimizer.optimize(onnx.load(source)), source, out)


def _graphsurgeon(source: str, out: str) -> None:
    onnx, gs = _the("onnx"), _the("onnx_graphsurgeon")
    graph = gs.import_onnx(onnx.load(source))
    _save(gs.export_onnx(graph.fold_constants().cleanup().toposort()), source, out)


def _the(module: str) -> Any:
    return importlib.import_module(module)  # only one environment has it


def _save(model: Any, source: str, out: str) -> None:
    beside = f"{source}.data"
    size = os.path.getsize(source) + (os.path.getsize(beside) if os.path.exists(beside) else 0)
    if size < _MOST_INLINE:
        _the("onnx").save(model, out)
    else:
        name = os.path.basename(out) + ".data"
        _the("onnx").save(model, out, save_as_external_data=True, location=name)


TOOLS: dict[str, Callable[[str, str], None]] = {
    "ours": _onnxslim,
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxoptimizer": _onnxoptimizer,
    "onnxscript": _onnxscript,
    "graphsurgeon": _graphsurgeon,
}


if __name__ == "__main__":
    if hasattr(signal, "alarm"):
        signal.alarm(LIMIT_S)
    TOOLS[sys.argv[1]](sys.argv[2], sys.argv[3])
