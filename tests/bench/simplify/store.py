"""What was measured, by lines on disk: a run that stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """One small JSON file per model and kind of record; valid for as long as its key is."""

    folder: Path

    def get(self, model: str, kind: str, key: str) -> Record | None:
        """The record, if it was made for this very key."""
        found = self.newest(model, kind)
        return found if found and found["key"] == key else None

    def newest(self, model: str, kind: str) -> Record | None:
        """The record, whatever it was made for."""
        path = self._path(model, kind)
        if not path.exists():
            return None
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        return found

    def put(self, model: str, kind: str, key: str, record: Record) -> Record:
        """Replace what was noted before."""
        path = self._path(model, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"key": key, **record}, indent=1), encoding="utf-8")
        part.replace(path)
        return record

    def need(self, model: str, kind: str, key: str, make: Callable[[], Record]) -> Record:
        """The record, made where it is not there."""
        found = self.get(model, kind, key)
        return self.put(model, kind, key, make()) if found is None else found

    def _path(self, model: str, kind: str) -> Path:
        return self.folder / model / f"{kind.replace(', ', '_')}.json"
