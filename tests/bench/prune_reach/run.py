"""Prune every architecture by 30 % of each group, and compare with the masked originals.

python -m tests.bench.prune_reach.run [--models a,b] [--out docs/PRUNE_REACH.md]
python -m tests.bench.prune_reach.run --latency a,b --out docs/PRUNE_REACH.md
python -m tests.bench.prune_reach.run --latency missing --out docs/PRUNE_REACH.md

Exports what is not there, measures what was not measured yet, and writes the table as it grows; a
run that was stopped goes on. `--again` measures rows anew, `--latency` but the latency of rows: of
those named, or of those that have none.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.prune_reach.measure import latency, measure
from tests.bench.prune_reach.report import write
from tests.bench.prune_reach.subjects import Subject, subjects
from tests.bench.simplify.run import export
from tests.bench.simplify.store import Record, Store
from tests.bench.simplify.tools import make_exporter

_HOME = Path.home() / ".cache" / "onnxslim"
_TOGETHER = 6  # models exported by one process
_LARGE = 300e6  # bytes of an export that is deleted when its row is there
_ROW, _LATENCY, _MISSING = "row", "latency", "missing"


class Table:
    """The rows that are there and how more are made."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.store = Store(asked.work)
        self.asked = asked
        self.known = subjects(asked.zoo, asked.cache)
        self.end = time.monotonic() + asked.seconds

    def chosen(self) -> list[Subject]:
        """The rows to measure, in order."""
        wanted, kind = self.asked.latency or self.asked.models, self._kind
        named = wanted and wanted != _MISSING
        some = [self.known[name] for name in wanted.split(",")] if named else self.known.values()
        if self.asked.again or (self.asked.latency and named):
            return list(some)
        return [s for s in some if self.store.newest(s.name, kind) is None and self._is_due(s)]

    @property
    def _kind(self) -> str:
        return _LATENCY if self.asked.latency else _ROW

    def _is_due(self, subject: Subject) -> bool:
        row = self.store.newest(subject.name, _ROW)
        return self._kind == _ROW or (row is not None and "failure" not in row)

    def fill(self) -> None:
        """Measure until all rows are there or the time is up."""
        todo = self.chosen()
        for at, subject in enumerate(todo):
            if time.monotonic() > self.end:
                print(f"{len(todo) - at} models are left: run it again")
                return
            if not subject.path.exists():
                self._export(todo[at : at + _TOGETHER])
            self._measure(subject)
            self.write()

    def _export(self, some: Sequence[Subject]) -> None:
        missing = [s.name for s in some if s.architecture and not s.path.exists()]
        export(make_exporter(self.asked.exporter), self.asked.zoo, missing)

    def _measure(self, subject: Subject) -> None:
        if not subject.path.exists():
            failed = json.loads((self.asked.zoo / "failed.json").read_text())
            row: Record = {"failure": f"not exported: {failed.get(subject.name, '')}"}
            self.store.put(subject.name, _ROW, "", row)
            return
        if not self.asked.latency:
            self._put(subject, _ROW, lambda: measure(subject))
        if self.asked.budget > 0:
            self._put(subject, _LATENCY, lambda: latency(subject, self.asked.budget))
        files = subject.files()
        if sum(file.stat().st_size for file in files) > _LARGE and not self.asked.keep:
            for file in files:
                file.unlink()

    def _put(self, subject: Subject, kind: str, make: Callable[[], Record]) -> None:
        start = time.monotonic()
        try:
            record = make()
        except Exception as error:  # noqa: BLE001 - the table shows it
            record = {"failure": f"{type(error).__name__}: {error}"[:300]}
        self.store.put(subject.name, kind, "", record)
        told = record.get("failure", record.get("ratio", "done"))
        print(f"{subject.name}: {kind} {told}, {time.monotonic() - start:.1f} s", flush=True)

    def write(self) -> None:
        """The table of all rows that are there."""
        rows = {
            name: (subject, row, self.store.newest(name, _LATENCY) or {})
            for name, subject in self.known.items()
            if (row := self.store.newest(name, _ROW)) is not None
        }
        if self.asked.out is not None:
            write(rows, self.asked.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="", help="names; without it all")
    parser.add_argument("--latency", default="", help=f"measure but latency: names, or {_MISSING}")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing; 0 for none")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after that")
    parser.add_argument("--keep", action="store_true", help="do not delete large exports")
    parser.add_argument("--exporter", type=Path, default=_HOME / "simplify" / "exporter")
    parser.add_argument("--zoo", type=Path, default=_HOME / "simplify" / "zoo")
    parser.add_argument("--work", type=Path, default=_HOME / "prune_reach")
    parser.add_argument("--cache", type=Path, help="where the outside models are")
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    return parser.parse_args()


def main() -> None:
    """Fill and write the table."""
    table = Table(_arguments())
    table.fill()
    table.write()


if __name__ == "__main__":
    main()
