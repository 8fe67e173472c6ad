"""Files of a run: text that is written whole or not at all, and how large a model is on disk."""

from __future__ import annotations

from pathlib import Path

from onnxslim import ir
from onnxslim.ir import ExternalTensor, Model
from onnxslim.ir.files import Staging, output_errors
from onnxslim.ir.write import wants_external


def write_text(path: Path, text: str, so_far: str = "nothing was changed") -> None:
    """Write a file whole or not at all; raises OutputError, which ends with `so_far`."""
    with output_errors(path, so_far), Staging(path.absolute().parent) as staging:
        made = staging.fresh(f".{path.name}", ".tmp")
        with staging.writing(made) as file:
            file.write(text.encode())
        staging.place(made, path.absolute())


def saved_bytes(path: Path, model: Model) -> int:
    """Bytes of the file that the model was just saved to, with its external data."""
    return file_bytes(path, ir.load(path) if wants_external(model) else model)


def file_bytes(path: Path, model: Model) -> int:
    """Bytes of a model's file and of the external files that its weights are in."""
    files = {path.resolve()}
    for scope in ir.scopes(model):
        if isinstance(scope, ir.Graph):
            weights = (value.const_value for value in scope.initializers.values())
            files.update(Path(w.path).resolve() for w in weights if isinstance(w, ExternalTensor))
    return sum(file.stat().st_size for file in files)
