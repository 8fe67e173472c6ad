"""Whether packages that call the other onnxslim (PyPI) work with this one in its place.

    python -m tests.bench.dropin [--folder F] [--only NAME ...]

Each package gets a virtual environment of its own. Its code that calls onnxslim runs on a real
model twice: with the onnxslim that it asks for, and with this checkout installed instead. Writes
docs/DROPIN.md. Takes minutes and some GB of disk; not part of the tests.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "docs" / "dropin"
PAGE = ROOT / "docs" / "DROPIN.md"
_MOST = 1200  # seconds of one step

_COMMON = """
import json, os, sys, warnings
import numpy as np, onnx, onnxruntime as rt
import onnxslim
calls = []
real = onnxslim.slim
def spy(*args, **kwargs):
    result = real(*args, **kwargs)
    calls.append((sorted(kwargs), result is not None))
    return result
onnxslim.slim = spy
path = sys.argv[1]
x = np.random.default_rng(0).random((4, 1, 28, 28), dtype=np.float32)
def run(model):
    data = model if isinstance(model, str) else model.SerializeToString()
    session = rt.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]
def tell(model, after, **more):
    assert calls and all(ok for _, ok in calls), f"onnxslim.slim gave nothing: {calls}"
    diff = float(np.abs(run(after) - run(model)).max())
    loaded = onnx.load(after) if isinstance(after, str) else after
    print("RESULT " + json.dumps({
        "onnxslim": os.path.dirname(onnxslim.__file__), "calls": len(calls),
        "before": len(onnx.load(path).graph.node), "after": len(loaded.graph.node),
        "difference": diff, **more}))
"""


@dataclass(frozen=True)
class Case:
    """A package, what it needs beyond `--no-deps`, and its code that calls onnxslim."""

    package: str
    version: str
    asks_for: str  # the onnxslim that it asks for
    what: str
    requirements: tuple[str, ...]
    code: str
    model: str = "fashion_resnet"


_TORCH = ("torch==2.13.0+cpu",)

CASES: Mapping[str, Case] = {
    "quark": Case(
        "amd-quark",
        "0.13",
        "onnxslim>=0.1.84",
        "`optimize_model_using_onnxslim`, the shape shifter's `ONNXSimplifyPass`",
        (*_TORCH, "onnx==1.21.0", "onnxruntime", "onnxscript", "numpy>=2", "pandas", "plotly",
         "psutil", "pydantic", "rich", "scipy", "tqdm", "zstandard", "protobuf", "joblib",
         "sentencepiece", "ninja", "evaluate"),
        """
from quark.onnx.optimizations.interface import optimize_model_using_onnxslim
model = onnx.load(path)
after = optimize_model_using_onnxslim(model, {"skip_fusion_patterns": ["EliminationSlice"]})
assert after is not model
import quark.shapeshifter.passes.onnx_simplify as shift
after = shift.ONNXSimplifyPass._onnx_simplify(None, after, {"model_check": True})
tell(path, after)
""",
    ),
    "xslim": Case(
        "xslim",
        "2.1.2",
        "onnxslim==0.1.87",
        "`optimize_onnx_model`, with the matchers that it registers, and `infer_onnx_model`",
        (*_TORCH, "torchvision", "onnx==1.21.0", "onnxruntime==1.24.3", "numpy>=2", "protobuf",
         "tqdm", "pandas", "opencv-python-headless", "tabulate", "onnx-graphsurgeon>=0.6.1",
         "onnxconverter_common>=1.16.0", "loguru"),
        """
import torch  # PyPI's torchvision is built for another torch; xslim uses its transforms only
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from xslim.onnxslim_pass import infer_onnx_model, optimize_onnx_model
model = onnx.load(path)
after = infer_onnx_model(optimize_onnx_model(model))
assert after.graph.value_info
gelus = sum(node.op_type == "Gelu" for node in after.graph.node)
assert gelus, "no matcher was applied"
tell(path, after)
""",
        "fashion_vit",
    ),
    "modelopt": Case(
        "nvidia-modelopt",
        "0.47.0",
        "onnxslim>=0.1.76",
        "`modelopt.onnx.quantization.quantize(..., simplify=True)` to int8",
        (*_TORCH, "onnx==1.21.0", "onnxruntime", "onnx-graphsurgeon>=0.6.1", "onnxscript",
         "onnxconverter-common~=1.16.0", "polygraphy>=0.53.4", "ml_dtypes", "numpy", "scipy",
         "nvidia-ml-py>=12", "packaging", "setuptools>=80", "tqdm", "PyYAML>=6", "omegaconf>=2.3",
         "pulp<4", "pydantic>=2", "regex", "rich", "safetensors", "lief", "cppimport"),
        """
import shutil, tempfile
from modelopt.onnx.quantization.quantize import quantize
folder = tempfile.mkdtemp()
shutil.copy(path, folder + "/model.onnx")
name = onnx.load(path).graph.input[0].name
quantize(folder + "/model.onnx", quantize_mode="int8", simplify=True, calibration_data={name: x},
         calibration_eps=["cpu"], output_path=folder + "/out.onnx", keep_intermediate_files=True)
out = onnx.load(folder + "/out.onnx")
q = sum(node.op_type == "QuantizeLinear" for node in out.graph.node)
assert q, "nothing was quantized"
tell(path, folder + "/model_simp.onnx", quantizers=q)
""",
    ),
}  # fmt: skip


class Broken(Exception):
    """A step that did not work; says its last words."""


def main() -> int:
    """Run the cases and write the page."""
    parser = argparse.ArgumentParser(description="the packages that call the other onnxslim")
    parser.add_argument("--folder", type=Path, help="keeps the environments for another run")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="onnxslim-dropin-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        row = measure(name, CASES[name], folder)
        (folder / f"{name}.json").write_text(json.dumps(row, indent=2) + "\n")
        print(json.dumps(row, indent=2))
    rows = [json.loads(p.read_text()) for n in CASES if (p := folder / f"{n}.json").exists()]
    PAGE.write_text(page(rows), encoding="utf-8")
    print(page(rows))
    return 0 if all(row["ours"].get("passed") for row in rows) else 1


def measure(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Install the package, run its code with the other onnxslim, then with this one."""
    row: dict[str, Any] = {"name": name, "date": datetime.date.today().isoformat()}
    try:
        python = _environment(folder / name, case)
    except Broken as error:
        return {**row, "theirs": {}, "ours": {"passed": False, "why": f"not installed: {error}"}}
    for which in ("theirs", "ours"):
        try:
            _install(python, case, which)
            row[which] = {"passed": True, **_probe(python, case, folder)}
        except Broken as error:
            row[which] = {"passed": False, "why": str(error)}
    row["versions"] = _versions(python)
    return row


def _environment(folder: Path, case: Case) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    _run(python, "-m", "pip", "install", "-q", *case.requirements)
    _run(python, "-m", "pip", "install", "-q", "--no-deps", f"{case.package}=={case.version}")
    return python


def _install(python: Path, case: Case, which: str) -> None:
    """One onnxslim at a time: both are the import `onnxslim`."""
    names = ("onnxslim", "onnxslim-compiler")
    _run(python, "-m", "pip", "uninstall", "-q", "-y", *names)
    if which == "theirs":
        _run(python, "-m", "pip", "install", "-q", "colorama", case.asks_for)
        return
    _run(python, "-m", "pip", "install", "-q", str(ROOT), "onnx==1.21.0")
    _run(python, "-m", "pip", "install", "-q", "--no-deps", str(STAND_IN))


def _probe(python: Path, case: Case, folder: Path) -> dict[str, Any]:
    model = ROOT / "models" / f"{case.model}.onnx"
    shown = _run(python, "-c", _COMMON + case.code, str(model), cwd=folder)
    found = [line for line in shown.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise Broken(f"no result: {shown[-300:]}")
    return cast("dict[str, Any]", json.loads(found[-1].removeprefix("RESULT ")))


def _versions(python: Path) -> dict[str, str]:
    names = ("onnx", "onnxruntime", "torch", "numpy", "onnxslim-compiler", "onnx-graphsurgeon")
    code = (
        "import importlib.metadata as m, json; v = {}\n"
        f"for n in {names!r}:\n"
        "    try: v[n] = m.version(n)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(v))"
    )
    return cast("dict[str, str]", json.loads(_run(python, "-c", code).splitlines()[-1]))


def _run(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    try:
        ran = subprocess.run(
            [str(python), *arguments],
            capture_output=True,
            text=True,
            timeout=_MOST,
            cwd=cwd,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
    except subprocess.TimeoutExpired as error:
        raise Broken(f"more than {_MOST} s: {' '.join(arguments)[:80]}") from error
    if ran.returncode:
        words = ran.stderr.strip().splitlines() or ran.stdout.strip().splitlines() or ["?"]
        raise Broken(" ".join(words[-1:])[:300])
    return ran.stdout + ran.stderr


def page(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = [
        "# In place of PyPI `onnxslim`",
        "",
        "Packages that call the PyPI package `onnxslim`, each in a virtual environment of its own,",
        "first with the `onnxslim` that it asks for, then with this one installed instead. The",
        "package's own code runs on a model of `models/`; the simplified model's outputs",
        "are compared with the original's in ONNX Runtime. Made by `python -m tests.bench.dropin`.",
        "",
        "The packages were installed without their own lists of dependencies (GPU runtimes, exact",
        "pins), with what this code needs, on a CPU.",
        "",
        "| package | asks for | what ran | model, nodes | with theirs | with ours | date |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        case = CASES[row["name"]]
        nodes = row["ours"].get("before", row["theirs"].get("before", "-"))
        theirs, ours = _cell(row["theirs"]), _cell(row["ours"])
        lines.append(
            f"| {case.package} {case.version} | `{case.asks_for}` | {case.what} "
            f"| {case.model}, {nodes} | {theirs} | {ours} | {row['date']} |"
        )
    lines += [
        "",
        "Some packages look for a *distribution* of the name `onnxslim` (amd-quark does), not only",
        "for the module. `docs/dropin` is one without files that depends on this one:",
        "`pip uninstall onnxslim`, then `pip install onnxslim-compiler ./docs/dropin`. It",
        "was installed here.",
    ]
    lines += ["", "Versions:", ""]
    for row in rows:
        listed = ", ".join(f"{n} {v}" for n, v in row.get("versions", {}).items())
        lines.append(f"- {CASES[row['name']].package}: {listed or 'not installed'}")
    return "\n".join(lines) + "\n"


def _cell(result: dict[str, Any]) -> str:
    if not result:
        return "-"
    if not result["passed"]:
        return f"fails: {result['why']}".replace("|", "/")
    more = f", {result['quantizers']} quantizers" if "quantizers" in result else ""
    return f"works: {result['after']} nodes{more}, outputs differ by {result['difference']:.1e}"


if __name__ == "__main__":
    sys.exit(main())
