"""A training that was killed goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from onnxslim.passes.distill.graph.api import torch

EVERY = 20.0
"""Seconds between two."""


@dataclass(frozen=True)
class Saved:
    """What was saved."""

    state: dict[str, Any]
    best: dict[str, Any]  # tensors
    best_error: float
    rate: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """A file for one training, named by all that it depends on; written whole or not at all."""

    path: Path
    every: float = EVERY

    def save(
        self,
        state: Mapping[str, Any],
        best: Mapping[str, Any],
        best_error: float,
        rate: float,
        steps: int,
        seconds: float,
    ) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(f".{os.getpid()}.new")
        tensors = {name: torch.as_tensor(array) for name, array in best.items()}
        torch.save(
            {"state": dict(state), "best": tensors, "best_error": best_error, "rate": rate,
             "steps": steps, "seconds": seconds},
            new,
        )  # fmt: skip
        os.replace(new, self.path)

    def load(self) -> Saved | None:
        """What was saved; None where there is no file, or one that cannot be read."""
        if not self.path.is_file():
            return None
        try:
            return Saved(**torch.load(self.path, weights_only=True))
        except (RuntimeError, TypeError, EOFError, OSError, KeyError, UnpicklingError):
            return None

    def remove(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)
