"""The outside models as files in a cache: made where absent, scored once, then reused."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from models.catalog import ModelError, Recipe, recipe, resolve
from models.packages import Store
from models.scoring import Metric, Scores, score

STAMP = "made.json"


def default_cache() -> Path:
    """`~/.cache/onnxslim/models`."""
    return Path.home() / ".cache" / "onnxslim" / "models"


@dataclass(frozen=True)
class Entry:
    """A model in the cache: its files, its metric (higher is better) and its FP32 score."""

    name: str
    model: Path
    calib: Path
    eval: Path
    metric: Metric
    metric_ref: str
    score: float


def load_entry(name: str, cache: Path | None = None) -> Entry:
    """The model called `name`; fetches and makes it if the cache lacks it."""
    wanted = recipe(name)
    folder = ensure(wanted, cache or default_cache())
    return Entry(
        name=name,
        model=folder / wanted.model,
        calib=folder / wanted.calib,
        eval=folder / wanted.eval,
        metric=resolve(wanted.metric),
        metric_ref=wanted.metric,
        score=float(stamp(folder)["values"][wanted.metric_name]),
    )


def stamp(folder: Path) -> dict[str, Any]:
    """What was noted when the folder was made; empty if it was not."""
    path = folder / STAMP
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def is_made(wanted: Recipe, cache: Path) -> bool:
    """Whether the cache holds this very recipe."""
    noted = stamp(cache / wanted.name)
    return noted.get("digest") == wanted.digest and wanted.metric_name in noted["values"]


def ensure(wanted: Recipe, cache: Path, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of a made and scored model; makes it beside and renames, if it is not there."""
    folder = cache / wanted.name
    if is_made(wanted, cache):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{wanted.name}-") as temporary:
        fresh = Path(temporary) / wanted.name
        fresh.mkdir()
        _make(wanted, Store(cache / "packages"), fresh, tell)
        _replace(fresh, wanted, cache)
    return folder


def _replace(fresh: Path, wanted: Recipe, cache: Path) -> None:
    """Moves a made folder into place, unless another process was faster."""
    folder = cache / wanted.name
    if not is_made(wanted, cache):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(fresh, folder)
    except OSError:
        if not is_made(wanted, cache):
            raise


def _make(wanted: Recipe, store: Store, folder: Path, tell: Callable[[str], None]) -> None:
    for package in wanted.packages:
        tell(f"{package.name} {package.version}: {package.licence}")
        store.path(package)
    resolve(wanted.build)(wanted, store, folder / wanted.model)
    resolve(wanted.samples)(wanted, store, folder)
    scores = score(wanted, folder / wanted.model, folder / wanted.eval)
    check(wanted, scores)
    noted = {"digest": wanted.digest, "onnxruntime": ort.__version__, **asdict(scores)}
    (folder / STAMP).write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


def check(wanted: Recipe, scores: Scores) -> None:
    """Raises ModelError where the FP32 score is not the manifest's."""
    if abs(scores.score - wanted.score) > wanted.tolerance:
        raise ModelError(
            f"{wanted.name} scored {wanted.metric_name} {scores.score:.4f}, but manifest.toml "
            f"expects {wanted.score} within {wanted.tolerance}: the data or the model was not "
            "made as it should be"
        )
