"""Scores a model of the cache, or any ONNX file in its place.

python models/score.py NAME [FILE.onnx] [--cache DIR] [--threads N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402

from models.catalog import ModelError, recipe  # noqa: E402
from models.metrics import agreement, sqnr  # noqa: E402
from models.scoring import labelled, run, score  # noqa: E402
from models.zoo import default_cache, ensure  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parsed.add_argument("name", metavar="NAME")
    parsed.add_argument("file", nargs="?", type=Path, metavar="FILE.onnx")
    parsed.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parsed.add_argument("--threads", type=int, default=1, metavar="N")
    parsed.add_argument(
        "--compare",
        action="store_true",
        help="also run the cached model and print how far FILE's outputs agree with its",
    )
    return parsed


def print_scores(asked: argparse.Namespace) -> None:
    """Every metric of the model, then what it was measured with."""
    wanted = recipe(asked.name)
    folder = ensure(wanted, asked.cache)
    model: Path = asked.file or folder / wanted.model
    if not model.is_file():
        raise ModelError(f"{model} is not a file")
    scores = score(wanted, model, folder / wanted.eval, asked.threads)
    for name, value in scores.values.items():
        print(f"{name} {value:.6f}")
    if asked.compare:
        print_comparison(model, folder / wanted.model, folder / wanted.eval, asked.threads)
    print(f"{scores.samples} samples, {scores.seconds:.2f} s, {asked.threads} threads, {model}")
    versions = f"onnx {onnx.__version__}, onnxruntime {ort.__version__}, numpy {np.__version__}"
    print(f"{versions}, python {sys.version.split()[0]}")


def print_comparison(model: Path, reference: Path, evaluation: Path, threads: int) -> None:
    """How far a file's outputs are from the cached model's."""
    feeds, _ = labelled(evaluation)
    outputs, expected = (run(path, feeds, threads) for path in (model, reference))
    if len(expected[0]) == 1:
        print(f"agreement {agreement(outputs, expected):.6f}")
    print(f"sqnr_db {sqnr(outputs, expected):.2f}")


def main() -> int:
    """Exit code 1 where there was nothing to score."""
    try:
        print_scores(parser().parse_args())
    except ModelError as error:
        print(f"score.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
