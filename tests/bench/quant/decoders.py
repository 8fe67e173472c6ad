"""Weight-only quantizers of language models side by side: ours and onnxruntime.quantization's.

python -m tests.bench.quant.decoders [NAME...] [--rows GLOB...] [--out docs/DECODERS.md]

Makes the peer's environment (HQQ needs torch) where it is not there, or takes that of --python.
Compiles each setting in a process of its own, scores it on the evaluation text, and times all
results in turns on one thread. Compiled files stay in --work and are made again with --again;
--rows compiles only these settings, and shows the others where an earlier run made them, so that
each run can be short. In --out, models that are not named keep what they have.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from models.metrics import perplexity
from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from tests.bench.cases import DECODER, Case, load_case
from tests.bench.compilers import watch
from tests.bench.environments import TORCH_CPU, make
from tests.bench.simplify.latency import open_file
from tests.bench.table import machine

NAMES = (DECODER, "smollm2_135m")
LENGTHS = (1, 8, 64)
PACKAGES = (
    ("torch==2.13.0", *TORCH_CPU),
    ("onnx==1.23.2", "onnxruntime==1.32.0", "onnx-ir", "ml_dtypes", "sympy==1.14.0"),
)
INTRO = """# Language models: weights in few bits

Written by `python -m tests.bench.quant.decoders`. *Perplexity* is that of the evaluation text,
which no tool has seen; *size* is bytes over FP32's; *ms* are medians of runs of 1, 8 and 64
tokens on one thread with ONNX Runtime, all files in turns, and in brackets FP32's time over them;
*seconds* and *peak* are those of the whole compile process, on a machine that others use too.
Peers write MatMulNBits in blocks of 32 at accuracy level 4 and leave the tied embedding in float;
ours stores it once, in 8 bits. *dynamic* is `quantize_dynamic` of MatMul; *ours, by default* is
`simplify,quant` with samples, which chooses between int8 throughout and weights alone.

Kernels for weights in codes round their inputs to 8 bits too, a block at a time. Beside weights in
8 bits that is most of the error, so with samples our channels are scaled until both round alike,
which is folded into what makes them. HQQ's own objective is not among our choices for want of
data: with whole zero points, which the fast kernel needs, its grids were no better than ours on
any heavy-tailed weights (`tests/property/test_quant_hqq.py`), and scaling of channels as in AWQ
gained nothing on other text once codes of 4 bits are fitted to the second moments.

SmolLM2-135M was published in 4 bits: blocks of 32 with real offsets (Q4_1). HQQ's zero points are
real too, so that it finds this very grid again, in the slow kernel. *decoder* has trained weights.
"""
HEAD = (
    "setting",
    "perplexity",
    "size",
    *(f"ms, {n} tokens" for n in LENGTHS),
    "seconds",
    "peak MB",
)


@dataclass(frozen=True)
class Setting:
    """`passes` of ours, with or without calibration text; else a `variant` of a peer's runner."""

    label: str
    passes: str = ""
    data: bool = True
    runner: str = "with_nbits"
    variant: str = ""

    @property
    def file(self) -> str:
        """The name of what it writes."""
        return f"{re.sub(r'[^a-z0-9]+', '_', self.label.lower())}.onnx"

    def command(self, case: Case, out: Path, python: str) -> list[str]:
        """The whole command line."""
        if self.passes:
            calib = ["--calib", str(case.calib)] if self.data else []
            flags = ["--passes", self.passes, "--no-check", "--quiet", *calib]
            return [sys.executable, "-m", "onnxslim", str(case.model), str(out), *flags]
        module = f"{__package__}.peers.{self.runner}"
        return [python, "-m", module, self.variant, str(case.model), str(case.calib), str(out)]


def _ours(label: str, options: str, data: bool = True) -> Setting:
    return Setting(f"ours, {label}", f"simplify,quant{options}", data)


def _bits(bits: int) -> str:
    return f"{{scheme=weight weight_bits={bits}}}"


SETTINGS = (
    *(
        Setting(f"onnxruntime {name}", variant=name)
        for name in ("RTN, 8 bits", "RTN, 4 bits", "HQQ, 4 bits", "k-quant, 4 bits", "GPTQ, 4 bits")
    ),
    Setting("onnxruntime dynamic", runner="with_ort", variant="dynamic, MatMul"),
    _ours("8 bits, no data", _bits(8), data=False),
    _ours("8 bits", _bits(8)),
    _ours("4 bits, no data", _bits(4), data=False),
    _ours("4 bits", _bits(4)),
    _ours("by default", ""),
)


@dataclass(frozen=True)
class Row:
    """One setting on one model; times are (ms, FP32's time over it) by number of tokens."""

    model: str
    setting: str
    perplexity: float = float("nan")
    size: float = 1.0
    times: Mapping[str, tuple[float, float]] | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
    failure: str = ""

    def cells(self) -> Iterable[str]:
        """As text."""
        yield self.setting
        if self.failure:
            yield from (f"failed: {self.failure}", *[""] * (len(HEAD) - 2))
            return
        yield f"{self.perplexity:.3f}"
        yield f"{self.size:.3f}"
        for length in LENGTHS:
            ms, speed = (self.times or {}).get(str(length), (float("nan"), float("nan")))
            yield f"{ms:.2f} ({speed:.2f})"
        yield from (f"{self.seconds:.0f}", f"{self.peak_mb:.0f}") if self.seconds else ("", "")


def scored(case: Case, path: Path) -> float:
    """Perplexity on the evaluation text."""
    return float(perplexity(case.run(path), case.labels))


def compiled(case: Case, setting: Setting, out: Path, asked: argparse.Namespace) -> Row | None:
    """One setting, made and scored; not timed yet. None where it is neither asked for nor there."""
    noted, key = out.with_suffix(".row"), (case.name, setting.label)
    wanted = any(fnmatch(setting.label, pattern) for pattern in asked.rows)
    if noted.exists() and not (asked.again and wanted):
        return Row(**json.loads(noted.read_text(encoding="utf-8")))
    if not wanted:
        return None
    out.unlink(missing_ok=True)
    if not setting.passes:
        asked.python = asked.python or make(asked.work / "peer", PACKAGES)
    limited = ["timeout", str(asked.limit), *setting.command(case, out, asked.python)]
    took = watch(limited, out)
    failure = took.failure or ("" if out.exists() else "wrote nothing")
    if took.seconds > asked.limit - 1:
        failure = f"out of time ({asked.limit} s)"
    row = Row(*key, seconds=took.seconds, peak_mb=took.peak_mb, failure=failure[:160])
    if not failure:
        try:
            found = scored(case, out)
        except Exception as error:  # noqa: BLE001 - the runtime's errors have no common class
            row = Row(*key, failure=f"does not run: {str(error).splitlines()[0][:120]}")
        else:
            size = sum(path.stat().st_size for path in out.parent.glob(f"{out.name}*"))
            share = size / case.model.stat().st_size
            row = Row(*key, found, share, None, took.seconds, took.peak_mb)
    noted.write_text(json.dumps(asdict(row)), encoding="utf-8")
    return row


def _float(name: str, case: Case, folder: Path, *, again: bool) -> Row:
    """The row of the model as it is, which an earlier run may have scored."""
    noted = folder / "fp32.row"
    if noted.exists() and not again:
        return Row(**json.loads(noted.read_text(encoding="utf-8")))
    row = Row(name, "FP32", scored(case, case.model))
    noted.write_text(json.dumps(asdict(row)), encoding="utf-8")
    return row


def race(paths: Sequence[Path], budget_s: float) -> list[dict[str, tuple[float, float]]]:
    """The times of all files in turns, the first being FP32's."""
    sessions = [open_file(path, 1) for path in paths]
    found: list[dict[str, tuple[float, float]]] = [{} for _ in paths]
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        feed: dict[str, Any] = {"input_ids": rng.integers(0, 1000, (1, length))}
        times: LatencyResult = interleaved_latency(sessions, feed, 1, budget_s)
        for i, ms in enumerate(times.ms):
            found[i][str(length)] = (ms, 1 / times.ratio(i))
    return found


def measure(name: str, asked: argparse.Namespace) -> list[Row]:
    """All settings of one model, FP32 first."""
    case, folder = load_case(name), asked.work / name
    folder.mkdir(parents=True, exist_ok=True)
    rows, paths = [_float(name, case, folder, again=asked.again)], [case.model]
    for setting in SETTINGS:
        path = folder / setting.file
        row = compiled(case, setting, path, asked)
        if row is not None:
            rows.append(row)
            paths.append(path)
            print(f"{name}: {' | '.join(row.cells())}", flush=True)
    good = [i for i, row in enumerate(rows) if not row.failure]
    times = dict(zip(good, race([paths[i] for i in good], asked.budget), strict=True))
    return [replace(row, times=times.get(i)) for i, row in enumerate(rows)]


def markdown(rows: Sequence[Row]) -> str:
    """A table for each model, and the machine."""
    parts = [INTRO]
    for name in dict.fromkeys(row.model for row in rows):
        lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows if row.model == name)]
        parts += [f"## {name}\n", *(f"| {' | '.join(line)} |" for line in lines), ""]
    return "\n".join([*parts, ", ".join(f"{k} {v}" for k, v in machine().items()), ""])


def kept(path: Path, names: Sequence[str]) -> list[Row]:
    """The rows of other models that a file holds already."""
    content: list[dict[str, Any]] = []
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**row) for row in content if row["model"] not in names]


def main() -> None:
    """Measure, print and write."""
    home = Path.home() / ".cache" / "onnxslim" / "decoders"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--rows", nargs="+", default=["*"], help="settings; * as in files")
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    parser.add_argument("--work", type=Path, default=home)
    parser.add_argument("--python", help="an interpreter with torch and onnxruntime")
    parser.add_argument("--limit", type=int, default=420, help="seconds for one compile")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of timing per length")
    parser.add_argument("--again", action="store_true", help="compile all anew")
    asked = parser.parse_args()
    asked.work = asked.work.resolve()
    rows: list[Row] = []
    for name in asked.names:
        rows += measure(name, asked)
    if asked.out is not None:
        rows = kept(asked.out.with_suffix(".json"), asked.names) + rows
        asked.out.write_text(markdown(rows), encoding="utf-8")
        content = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
        asked.out.with_suffix(".json").write_text(content, encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
