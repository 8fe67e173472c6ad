"""The flags of the command line, read from argv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from onnxslim import __version__
from onnxslim.config import Request, from_flags


class UsageError(Exception):
    """The command line itself cannot be read."""


@dataclass(frozen=True)
class Arguments:
    """What argv says."""

    source: Path | None
    output: Path | None
    flags: dict[str, Any]  # of a Request; None stands for not given
    config: Path | None
    quiet: bool
    print_pipeline: bool
    list_passes: bool

    def request(self) -> Request:
        """The request of the flags and of the TOML file; raises OnnxSlimError."""
        return from_flags(self.flags, self.config)


def read_arguments(argv: Sequence[str]) -> Arguments | Callable[[], object]:
    """The arguments, or what prints the help or the version; raises UsageError."""
    try:
        command, bound, _ = _APP.parse_args(list(argv), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UsageError(" ".join(str(error).split())) from error
    if command is not _arguments:
        return lambda: command(*bound.args, **bound.kwargs)
    arguments = _arguments(*bound.args, **bound.kwargs)
    needs_files = not (arguments.list_passes or arguments.print_pipeline)
    if needs_files and (arguments.source is None or arguments.output is None):
        raise UsageError("expected two files: python -m onnxslim IN.onnx OUT.onnx [options]")
    return arguments


_APP = App(
    name="onnxslim",
    version=__version__,
    help="Make a trained ONNX model smaller and faster, and prove that it still does its job.",
    usage="Usage: python -m onnxslim IN.onnx OUT.onnx [--passes quant,lowrank] [--calib data.npz]",
)
_APP["--help"].group = _APP["--version"].group = Group("About", sort_key=9)

_WHAT = Group("What to do", sort_key=1)
_DATA = Group("Samples and the check", sort_key=2)
_HOW = Group("How to run", sort_key=3)
_SHOW = Group("What to show and keep", sort_key=4)


@_APP.default
def _arguments(
    source: Annotated[Path | None, Parameter("IN", group=_WHAT)] = None,
    output: Annotated[Path | None, Parameter("OUT", group=_WHAT)] = None,
    /,
    *,
    passes: Annotated[str | None, Parameter(group=_WHAT)] = None,
    config: Annotated[Path | None, Parameter(group=_WHAT)] = None,
    target: Annotated[str | None, Parameter(group=_WHAT)] = None,
    calib: Annotated[str | None, Parameter(group=_DATA)] = None,
    eval: Annotated[str | None, Parameter(group=_DATA)] = None,
    metric: Annotated[str | None, Parameter(group=_DATA)] = None,
    max_drop: Annotated[float | None, Parameter(group=_DATA)] = None,
    preprocess: Annotated[str | None, Parameter(group=_DATA)] = None,
    check: Annotated[bool | None, Parameter(group=_DATA)] = None,
    keep_best: Annotated[bool | None, Parameter(group=_DATA, negative="")] = None,
    threads: Annotated[int | None, Parameter(group=_HOW)] = None,
    seed: Annotated[int | None, Parameter(group=_HOW)] = None,
    cache: Annotated[Path | None, Parameter(group=_HOW)] = None,
    allow_slower: Annotated[bool | None, Parameter(group=_HOW, negative="")] = None,
    report: Annotated[Path | None, Parameter(group=_SHOW)] = None,
    dump: Annotated[Path | None, Parameter(group=_SHOW)] = None,
    quiet: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    print_pipeline: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    list_passes: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
) -> Arguments:
    """
    Parameters
    ----------
    source
        The model to compile.
    output
        Where the result goes; it may be the input. Written only when everything went well.
    passes
        Passes in the order in which they run, with options in braces: quant{scheme=int8},lowrank.
        Without it: fold. An accuracy check always comes last.
    config
        A TOML file with the same settings, passes as [[pass]] tables; flags win over it.
    target
        The runtime to compile for (default: ort-cpu).
    calib
        Samples of real inputs: an .npz (one array per input, samples on axis 0), a folder of
        .npz files or of images, or module:function that yields feeds.
    eval
        Other samples for the check, with labels under 'labels'. Without it a fifth of --calib is
        held out.
    metric
        top1, agreement, sqnr, cosine or module:function(outputs, labels) -> float.
    max_drop
        By how much the metric may fall, in its own units: 0.01 is one point of top1.
    preprocess
        For folders of images: 'size=256 crop=224 mean=0.485,0.456,0.406 scale=... layout=NCHW'.
    keep_best
        When the check fails, write the last state that passes instead of nothing.
    threads
        Threads of ONNX Runtime, for running and for timing (default: 1).
    seed
        Seed of everything random (default: 0).
    cache
        A folder for statistics and timings, so that a run can be resumed.
    allow_slower
        Keep what passes did also where the model became slower by it.
    report
        Write the whole result as JSON.
    dump
        A folder for the model after each pass.
    quiet
        Print errors only.
    print_pipeline
        Print the pipeline as it would run, and stop.
    list_passes
        Print every pass with its options, and stop.
    """
    flags: dict[str, Any] = {
        "passes": passes,
        "target": target,
        "calib": calib,
        "eval": eval,
        "metric": metric,
        "max_drop": max_drop,
        "preprocess": preprocess,
        "keep_best": keep_best,
        "threads": threads,
        "seed": seed,
        "cache": cache,
        "allow_slower": allow_slower,
        "report": report,
        "dump": dump,
    }
    return Arguments(source, output, flags, config, quiet, print_pipeline, list_passes)
