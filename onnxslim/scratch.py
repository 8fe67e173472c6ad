"""A temporary folder that goes when it is no longer used; where the process is killed before, the
next run removes it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from onnxslim.leftovers import SCRATCH, hold, let_go


class Scratch:
    """A folder that goes when it is closed, when nothing refers to it, or with the process."""

    def __init__(self) -> None:
        self.path, held = _made()
        self._end = weakref.finalize(self, _remove, self.path, held)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with what is in it, as far as the system lets."""
        self._end()


def _made() -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=SCRATCH))
        held = hold(path)
        if path.exists():
            return path, held
        let_go(held)  # another run removed it before it was held


def _remove(path: Path, held: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    let_go(held)
