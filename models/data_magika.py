"""Files of pinned packages for the byte classifier, labelled by their extension.

Features follow magika's description: whitespace is stripped from the first and the last 4096
bytes, of which the first and the last 1024 are kept, padded with 256. Left out are templates,
which are another language than their extension says, and `.txt`, which says nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.catalog import Recipe
from models.packages import Store
from models.samples import save_stacked

Array = NDArray[Any]
EXTENSIONS = {
    ".c": "c",
    ".cpp": "cpp",
    ".cs": "cs",
    ".css": "css",
    ".csv": "csv",
    ".docx": "docx",
    ".emf": "emf",
    ".gif": "gif",
    ".gz": "gzip",
    ".h": "c",
    ".html": "html",
    ".ico": "ico",
    ".jpeg": "jpeg",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".odt": "odt",
    ".pdf": "pdf",
    ".png": "png",
    ".po": "po",
    ".pptx": "pptx",
    ".proto": "proto",
    ".ps1": "powershell",
    ".psm1": "powershell",
    ".py": "python",
    ".rst": "rst",
    ".sh": "shell",
    ".so": "elf",
    ".svg": "svg",
    ".tex": "latex",
    ".tif": "tiff",
    ".toml": "toml",
    ".ts": "typescript",
    ".ttf": "ttf",
    ".xml": "xml",
    ".yml": "yaml",
}
CONFIG = "magika/models/standard_v3_3/config.min.json"
KEPT, BLOCK, PADDING = 1024, 4096, 256
SMALLEST_FILE = 200
TEMPLATE_MARKS = (b"{%", b"{{")
MARKUP = {".html", ".rst", ".xml"}
EVALUATED_PER_LABEL = 36
CALIBRATION_SHARE = 5
SEED = 0
Labelled = tuple[bytes, str]


def features(content: bytes) -> Array:
    """2048 numbers [int32]: the stripped start, padded behind, then the end, padded before."""
    block = min(BLOCK, len(content))
    start = content[:block].lstrip()[:KEPT]
    end = content[len(content) - block :].rstrip()[-KEPT:]
    numbers = np.full(2 * KEPT, PADDING, np.int32)
    numbers[: len(start)] = np.frombuffer(start, np.uint8)
    numbers[2 * KEPT - len(end) :] = np.frombuffer(end, np.uint8)
    return numbers


def is_clear(extension: str, content: bytes) -> bool:
    """Whether the extension can be trusted as a label: not tiny and no template."""
    template = extension in MARKUP and any(mark in content for mark in TEMPLATE_MARKS)
    return len(content) >= SMALLEST_FILE and not template


def files(recipe: Recipe, store: Store) -> Iterator[Labelled]:
    """Every distinct file with a known extension, with its label, in a fixed order."""
    seen: set[bytes] = set()
    for package in recipe.data:
        archive = store.open(package)
        for member in sorted(archive.names()):
            extension = PurePosixPath(member).suffix
            content = archive.read(member) if extension in EXTENSIONS else b""
            if is_clear(extension, content) and content not in seen:
                seen.add(content)
                yield content, EXTENSIONS[extension]


def split(labelled: Iterator[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Evaluation and calibration files: for each label a draw, every fifth to calibration."""
    groups: defaultdict[str, list[Labelled]] = defaultdict(list)
    for content, label in labelled:
        groups[label].append((content, label))
    random = np.random.default_rng(SEED)
    evaluation: list[Labelled] = []
    calibration: list[Labelled] = []
    for label in sorted(groups):
        drawn = [groups[label][place] for place in random.permutation(len(groups[label]))]
        drawn = drawn[: EVALUATED_PER_LABEL * CALIBRATION_SHARE // (CALIBRATION_SHARE - 1)]
        for place, sample in enumerate(drawn, 1):
            (evaluation if place % CALIBRATION_SHARE else calibration).append(sample)
    return evaluation, calibration


def label_numbers(recipe: Recipe, store: Store) -> dict[str, int]:
    """The model's class of each label."""
    config = json.loads(store.open(recipe.package).read(CONFIG))
    return {label: number for number, label in enumerate(config["target_labels_space"])}


def stacked(samples: Sequence[Labelled]) -> Array:
    """The features of all samples."""
    return np.stack([features(content) for content, _ in samples])


def make(recipe: Recipe, store: Store, folder: Path) -> None:
    """Writes the features of calibration and evaluation files."""
    evaluation, calibration = split(files(recipe, store))
    numbers = label_numbers(recipe, store)
    labels = np.array([numbers[label] for _, label in evaluation], np.int64)
    save_stacked(folder / recipe.calib, bytes=stacked(calibration))
    save_stacked(folder / recipe.eval, bytes=stacked(evaluation), labels=labels)
