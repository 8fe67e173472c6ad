"""What is needed to see a failure again: a folder with the model and the rest of the pipeline."""

from __future__ import annotations

import platform
import tempfile
import traceback
from importlib import metadata
from pathlib import Path

from onnxslim import ir
from onnxslim.errors import OnnxSlimError
from onnxslim.pipeline.instruments import Failure, Instrument
from onnxslim.pipeline.options import to_spec

_PACKAGES = ("onnxslim-compiler", "onnx", "onnx-ir", "onnxruntime", "numpy", "scipy")


class Reproducer(Instrument):
    """Writes the folder when a pass breaks; it holds no calibration data."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent

    def failed(self, failure: Failure) -> str:
        """Where the folder is, or why there is none."""
        try:
            folder = _write(failure, self._parent)
        except (OSError, OnnxSlimError) as error:
            return f"the reproducer could not be written: {error}"
        return f"reproducer: {folder}"


def _write(failure: Failure, parent: Path | None) -> Path:
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="onnxslim-reproducer-", dir=parent))
    rest = ",".join(str(to_spec(p)) for p in failure.rest)
    (folder / "pipeline.txt").write_text(f"{rest}\n")
    (folder / "command.txt").write_text(
        f"python -m onnxslim model.onnx out.onnx --passes '{rest}'\n"
    )
    (folder / "versions.txt").write_text("".join(f"{line}\n" for line in versions()))
    (folder / "traceback.txt").write_text("".join(traceback.format_exception(failure.error)))
    ir.save(failure.before, folder / "model.onnx")
    return folder


def versions() -> tuple[str, ...]:
    """The versions that a result depends on, one per line."""
    found = [f"python {platform.python_version()} on {platform.platform()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return tuple(found)
