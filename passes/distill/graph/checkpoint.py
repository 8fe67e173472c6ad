"""A training that was killed goes on where it was; one that was done before is not done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from onnxslim.ir.files import output_errors, replacing
from onnxslim.passes.distill.graph.api import torch

EVERY = 20.0
"""Seconds between two."""


@dataclass(frozen=True)
class Saved:
    """What was saved; `state` is empty and `ended` says how where the training is over."""

    state: dict[str, Any]
    best: Mapping[str, Any]  # arrays or tensors
    best_error: float
    rate: float
    batch: int
    steps: int
    seconds: float
    ended: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A file for one training, named by all that it depends on; written whole or not at all."""

    path: Path
    every: float = EVERY

    def save(self, saved: Saved) -> None:
        """Replace the file; raises OutputError."""
        best = {name: torch.as_tensor(value) for name, value in saved.best.items()}
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                torch.save({**vars(saved), "best": best}, file)

    def load(self) -> Saved | None:
        """What was saved; None where there is no file, or one that cannot be read."""
        if not self.path.is_file():
            return None
        try:
            return Saved(**torch.load(self.path, weights_only=True))
        except (RuntimeError, TypeError, EOFError, OSError, KeyError, UnpicklingError):
            return None
