"""Small files of arrays in the cache folder: complete or absent, and never trusted blindly."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxslim.ir import Array
from onnxslim.ir.files import output_errors, replacing


def write(path: Path, content: Mapping[str, Array]) -> None:
    """Write arrays so that the file is either complete or absent; raises OutputError."""
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **content)  # type: ignore[arg-type]


def read(path: Path) -> dict[str, Array] | None:
    """The arrays of a file; None when it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
