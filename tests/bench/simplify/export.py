"""Exports the architectures to ONNX; runs in an environment with torch, torchvision and timm.

python -m tests.bench.simplify.export FOLDER [NAME...]

Random weights, as constructed (`NAME_fresh.onnx`, the seven of `SEVEN` only) and with a healthy
spread (`NAME.onnx`), so that no layer is an identity by accident. The first axis of the input is
the batch and dynamic. What does not export is written to FOLDER/failed.json with its reason.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.bench.simplify.architectures import (
    ARCHITECTURES,
    OPSET,
    REST,
    SEVEN,
    SUITES,
    Architecture,
)
from tests.bench.simplify.operators import declare_operators

torch: Any = importlib.import_module("torch")  # this environment has it, the project's has not


def construct(wanted: Architecture) -> Any:
    """The network with the weights of its constructor."""
    module = importlib.import_module(SUITES[wanted.suite])
    if wanted.suite == "timm":
        return module.create_model(wanted.name, pretrained=False, **dict(wanted.arguments))
    if wanted.suite in ("seg", "det"):
        return getattr(module, wanted.name)(
            weights=None, weights_backbone=None, **dict(wanted.arguments)
        )
    return getattr(module.models, wanted.name)(weights=None, **dict(wanted.arguments))


def spread(net: Any) -> None:
    """Weights as after some training: no scale is 1, no shift 0, no residual branch silent."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if value.is_floating_point():
                _spread_one(name, value, random)


def _spread_one(name: str, value: Any, random: Any) -> None:
    normal = torch.randn(value.shape, generator=random)
    if value.ndim > 1:
        silent = name.endswith("weight") and float(value.std()) == 0
        value.copy_(normal / math.sqrt(value.shape[-1]) if silent else value + normal * 1e-3)
    elif name.endswith("running_var"):
        value.copy_(torch.rand(value.shape, generator=random) * 0.5 + 0.75)
    elif name.endswith("weight"):
        value.copy_(torch.rand(value.shape, generator=random) * 0.4 + 0.8)
    else:
        value.copy_(normal * 0.1)


def export(wanted: Architecture, path: Path, *, fresh: bool) -> None:
    """Write one file, whole or not at all."""
    torch.manual_seed(0)
    net = construct(wanted)
    if not fresh:
        spread(net)
    image = torch.rand(3, wanted.size, wanted.size)
    detects = wanted.suite == "det"
    folder = path.with_suffix(".part")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    torch.onnx.export(
        net.eval(),
        ([image],) if detects else (torch.randn(2, 3, wanted.size, wanted.size),),
        str(folder / path.name),
        opset_version=OPSET,
        input_names=["input"],
        dynamic_axes={"input": {1: "height", 2: "width"} if detects else {0: "batch"}},
        dynamo=False,
    )
    del net
    _move(folder, path)


def _move(folder: Path, path: Path) -> None:
    """Put an export in its place; weights of over 2 GB, a file each, into one beside it."""
    made = folder / path.name
    if len(list(folder.iterdir())) == 1:
        made.rename(path)
        return
    onnx: Any = importlib.import_module("onnx")
    weights = f"{path.name}.data"
    (path.parent / weights).unlink(missing_ok=True)
    onnx.save(onnx.load(made), path, save_as_external_data=True, location=weights)


def main() -> None:
    """Export what is not there yet; an export that failed before is tried again."""
    warnings.filterwarnings("ignore")
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    library, failed = declare_operators(), folder / "failed.json"
    reasons: dict[str, str] = json.loads(failed.read_text()) if failed.exists() else {}
    known = [a for a in (*ARCHITECTURES, *REST) if a.file in names] if names else ARCHITECTURES
    for wanted in known:
        for fresh in (False, True) if wanted.name in SEVEN else (False,):
            path = folder / f"{wanted.file}{'_fresh' if fresh else ''}.onnx"
            if path.exists():
                continue
            try:
                export(wanted, path, fresh=fresh)
            except Exception as error:  # noqa: BLE001 - whatever torch throws is the reason
                reasons[path.stem] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            else:
                reasons.pop(path.stem, None)
            shutil.rmtree(path.with_suffix(".part"), ignore_errors=True)
            print(path.stem, reasons.get(path.stem, "exported"), flush=True)
            failed.write_text(json.dumps(reasons, indent=1, sort_keys=True) + "\n")
    del library


if __name__ == "__main__":
    main()
