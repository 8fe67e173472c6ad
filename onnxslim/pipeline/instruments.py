"""What watches the passes: hooks around each of them. They never swallow an exception."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxslim import ir
from onnxslim.errors import ModelError, PassError
from onnxslim.ir import Model
from onnxslim.ir.files import output_errors
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.fingerprint import fingerprint


@dataclass(frozen=True)
class Failure:
    """A pass that broke: what it was given, what was still to come, and the error."""

    pass_: Pass
    before: Model
    rest: tuple[Pass, ...]  # the failing pass first
    error: Exception


class Instrument:
    """Hooks around every pass; all do nothing by default."""

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """The pass is about to run."""

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """The pass has run, and its result is kept."""

    def rewind(self, kept: int) -> None:
        """All but the first passes, `kept` of them, are going to be run again."""

    def failed(self, failure: Failure) -> str:
        """The pass broke; returns a sentence for the error's message, or nothing."""
        return ""


class Verify(Instrument):
    """The model is valid after each pass, and one said to be unchanged is unchanged."""

    def __init__(self) -> None:
        self._before = ""

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """Remember the model's fingerprint."""
        self._before = fingerprint(model)

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """Raises PassError when the pass broke its promise."""
        if not result.changed:
            if fingerprint(model) != self._before:
                raise PassError("it says that it changed nothing, but the model differs")
            return
        try:
            ir.verify(model)
        except ModelError as error:
            raise PassError(f"it left an invalid model: {error}") from error


class Dump(Instrument):
    """The model after each pass, as a file of a folder: ``01-quant.onnx``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """Write the model; raises OutputError."""
        self._count += 1
        target = self._folder / f"{self._count:02}-{pass_.name}.onnx"
        with output_errors(target):
            self._folder.mkdir(parents=True, exist_ok=True)
        ir.save(model, target)

    def rewind(self, kept: int) -> None:
        """The files of the passes that run again are written anew."""
        self._count = kept


class Announce(Instrument):
    """Tells the progress function which pass runs now."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """Tell that the pass starts."""
        ctx.env.progress(pass_.name, self._done, self._total)
        self._done += 1

    def rewind(self, kept: int) -> None:
        """Count from there."""
        self._done = kept
