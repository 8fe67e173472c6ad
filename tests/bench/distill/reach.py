"""Which way of running an ONNX model by gradient reaches most models, and computes them rightly.

python -m tests.bench.distill.reach [--models FILE_OR_FOLDER ...] [--out docs/DISTILL.json]

Ours and onnx2torch (where installed) on ONNX's backend tests that ONNX Runtime runs, and on models.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx  # noqa: TID251 - the other converter reads it

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.runtime.session import open_session
from tests.corpus import Corpus

TOLERANCE = 1e-4
"""Of the largest number of an output, or of 1."""

Feed = Mapping[str, Any]
Convert = Callable[[onnx.ModelProto, Feed], Sequence[Array]]


def ours(proto: onnx.ModelProto, feed: Feed) -> Sequence[Array]:
    """The outputs of the IR run by torch."""
    from onnxslim.passes.distill.graph.api import torch
    from onnxslim.passes.distill.graph.convert import to_torch
    from onnxslim.passes.distill.graph.program import Program

    program = Program(ir.load(proto))
    if program.borders:
        raise NotImplementedError(str(program.left_out))
    fed = {n: to_torch(np.asarray(feed[n]), program.dtype, "cpu") for n in program.inputs}
    with torch.no_grad():
        found = program.run(fed)
    return [found[name].numpy() for name in program.outputs]


def onnx2torch(proto: onnx.ModelProto, feed: Feed) -> Sequence[Array]:
    """The outputs of the module that onnx2torch makes; its detection operators are left out,
    because they need a build of torchvision that matches torch."""
    if "torchvision" not in sys.modules:
        whole, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        vars(ops).update(nms=None, roi_align=None, box_convert=None, boxes=None)
        vars(whole)["ops"] = ops
        sys.modules.update({"torchvision": whole, "torchvision.ops": ops})
    torch: Any = import_module("torch")
    module = import_module("onnx2torch").convert(proto).eval()
    fixed = {value.name for value in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in fixed]
    with torch.no_grad():
        found: Any = module(*[torch.tensor(np.asarray(feed[name])) for name in names])
    several = cast("Sequence[Any]", found if type(found) in (list, tuple) else [found])
    return [x.numpy() for x in several]


WAYS: Mapping[str, Convert] = {"ours": ours, "onnx2torch": onnx2torch}


def verdict(convert: Convert, proto: onnx.ModelProto, feed: Feed, wanted: Sequence[Any]) -> str:
    """`agrees`, `differs` or `no`."""
    try:
        found = convert(proto, feed)
    except Exception:  # noqa: BLE001 - whatever a converter fails with, it has not converted
        return "no"
    if len(found) != len(wanted):
        return "differs"
    return "agrees" if all(map(_near, wanted, found)) else "differs"


def _near(wanted: Any, found: Array) -> bool:
    if not isinstance(wanted, np.ndarray) or wanted.dtype.kind in "OUS":
        return False
    x, y = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    size = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0)))
    return x.shape == y.shape and bool(
        np.allclose(x, y, rtol=0, atol=TOLERANCE * size, equal_nan=True)
    )


def models(paths: Sequence[Path]) -> Iterator[tuple[onnx.ModelProto, Feed, Sequence[Any]]]:
    """Models of files with one sample: the first of a calibration file beside it, else noise."""
    for path in [
        p for given in paths for p in (sorted(given.rglob("*.onnx")) if given.is_dir() else [given])
    ]:
        model = ir.load(path)
        feed = _feed(path, model)
        yield onnx.load(path), feed, list(open_session(model, threads=1).run(feed).values())


def _feed(path: Path, model: ir.Model) -> Feed:
    stem = path.stem.partition("_")[0] if path.parent.name == "models" else ""
    for file in (path.with_name("calib.npz"), path.with_name(f"{stem}_calib.npz")):
        if file.is_file():
            return {name: array[:1] for name, array in np.load(file).items()}
    files = sorted(path.with_name("calib").glob("*.npz"))
    if files:
        return dict(np.load(files[0]).items())
    rng = np.random.default_rng(0)
    shapes = {
        str(v.name): [d if isinstance(d, int) else 1 for d in v.shape or ()]
        for v in model.graph.inputs
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def main() -> None:
    """Count, print and write."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, nargs="*", default=[Path("models")])
    parser.add_argument("--out", type=Path, help="a .json file, of which only `reach` is changed")
    asked = parser.parse_args()
    counts = {f"{way}, {what}": Counter[str]() for way in WAYS for what in ("tests", "models")}
    tests = ((proto, feed, outputs) for _, proto, feed, outputs in Corpus().runnable())
    for what, cases in (("tests", tests), ("models", models(asked.models))):
        for proto, feed, wanted in cases:
            for way, convert in WAYS.items():
                counts[f"{way}, {what}"][verdict(convert, proto, feed, wanted)] += 1
    print(json.dumps(counts, indent=1))
    if asked.out is not None:
        held: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        asked.out.write_text(json.dumps({**held, "reach": counts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
