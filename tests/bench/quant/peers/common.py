"""What the runners share: the command line, the calibration samples, ONNX Runtime's preparation."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPSET = 17  # scales per channel need 13; converters to it are well tried
_LABELS = "labels"


@dataclass(frozen=True)
class Job:
    """What a runner is given; `folder` is for files on the way."""

    model: Path
    calib: Path
    out: Path
    transformer: bool
    folder: Path

    def feeds(self) -> Iterator[dict[str, Any]]:
        """The calibration samples one after the other, each with its batch axis."""
        numpy: Any = importlib.import_module("numpy")
        if self.calib.is_dir():
            for path in sorted(self.calib.glob("*.npz")):
                yield _inputs(numpy.load(path))
            return
        stacked = _inputs(numpy.load(self.calib))
        for row in range(len(next(iter(stacked.values())))):
            yield {name: array[row : row + 1] for name, array in stacked.items()}

    def at_opset(self, least: int = OPSET) -> Path:
        """The model, converted where it is older."""
        onnx: Any = importlib.import_module("onnx")
        model = onnx.load(str(self.model))
        if max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) >= least:
            return self.model
        converter: Any = importlib.import_module("onnx.version_converter")
        path = self.folder / "converted.onnx"
        onnx.save(converter.convert_version(model, least), str(path))
        return path

    def prepared(self, model: Path) -> Path:
        """What ONNX Runtime's guide asks for before quantization: shapes and simple fusions."""
        module: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
        path = self.folder / "prepared.onnx"
        try:
            module.quant_pre_process(str(model), str(path))
        except Exception:  # noqa: BLE001 - symbolic shape inference gives up with a bare Exception
            print("quant_pre_process failed; again without symbolic shape inference")
            module.quant_pre_process(str(model), str(path), skip_symbolic_shape=True)
        return path


class Reader:
    """ONNX Runtime's interface for calibration data, which others follow."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def rewind(self) -> None:
        """Start again; a list, as some tools copy the reader."""
        self._rest = list(self._job.feeds())[::-1]

    def get_next(self) -> dict[str, Any] | None:
        """The next sample, or None at the end."""
        return self._rest.pop() if self._rest else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._job.feeds()

    def __len__(self) -> int:
        return sum(1 for _ in self._job.feeds())


def reader(job: Job, base: type) -> Any:
    """A reader that is also of the class that a tool asks for."""
    return type("JobReader", (Reader, base), {})(job)


def main(variants: Mapping[str, Callable[[Job], None]]) -> None:
    """Run the variant that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=tuple(variants))
    for name in ("model", "calib", "out"):
        parser.add_argument(name, type=lambda text: Path(text).resolve())
    parser.add_argument("--transformer", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(asked.model, asked.calib, asked.out, asked.transformer, Path(folder))
        variants[asked.variant](job)


def _inputs(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in content.items() if name != _LABELS}
