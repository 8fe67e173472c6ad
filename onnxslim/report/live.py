"""What a person sees while the passes run: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from onnxslim.ir import Model
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.instruments import Instrument


class Live(Instrument):
    """Shows the running pass and how far its loops are; the line is gone when all is done."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._count = 0
        self._started = 0.0
        self._bar = Progress(
            SpinnerColumn("dots"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name = ""

    @contextmanager
    def shown(self) -> Generator[None]:
        """The line is on the screen inside of this."""
        with self._bar:
            yield

    def progress(self, what: str, done: int, total: int) -> None:
        """Told by the loops of passes and analyses."""
        if self._task is not None:
            amount = f"{done}/{total}" if total else ""
            self._bar.update(
                self._task,
                description=f"{self._head()}  {what}",
                completed=done,
                total=total or None,
                amount=amount,
            )

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """The next pass starts."""
        self._count += 1
        self._started = time.perf_counter()
        self._name = pass_.name
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(self._head(), total=None, amount="")

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """One plain line per pass where there is no terminal."""
        if not self._console.is_terminal:
            done = "changed the model" if result.changed else "changed nothing"
            left = f", {len(result.declined)} left alone" if result.declined else ""
            what = f"{self._head()}: {done}{left}, {time.perf_counter() - self._started:.1f} s"
            with suppress(OSError):  # that nobody can read it stops nothing
                self._console.print(what, markup=False, highlight=False, soft_wrap=True)

    def rewind(self, kept: int) -> None:
        """Count from there."""
        self._count = kept

    def _head(self) -> str:
        return f"[{self._count}/{self._total}] {self._name}"
