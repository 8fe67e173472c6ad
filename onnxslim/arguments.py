"""The flags of the command line, read from argv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter, Token

from onnxslim import __version__
from onnxslim.config import Request, from_flags
from onnxslim.pipeline.spec import PassSpec


class UsageError(Exception):
    """The command line itself cannot be read."""


@dataclass(frozen=True)
class Arguments:
    """What argv says."""

    files: tuple[Path, ...]
    flags: dict[str, Any]  # of a Request; None stands for not given
    config: Path | None
    quiet: bool
    print_pipeline: bool
    list_passes: bool
    list_rules: bool = False
    inspect: bool = False
    dump_to_disk: bool = False

    @property
    def source(self) -> Path | None:
        """The model to compile."""
        return self.files[0] if self.files else None

    @property
    def output(self) -> Path | None:
        """Where the result goes."""
        return self.files[1] if len(self.files) > 1 else None

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
    if problem := _problem(arguments):
        raise UsageError(problem)
    return arguments


def _problem(arguments: Arguments) -> str:
    """What is wrong with the files, if anything."""
    if arguments.list_passes or arguments.list_rules or arguments.print_pipeline:
        return ""
    if arguments.inspect:
        return "" if arguments.files else "--inspect: expected at least one model"
    if arguments.dump_to_disk:
        return "--dump-to-disk is for --inspect, or for a model without an output"
    if len(arguments.files) > 2:
        more = " ".join(map(str, arguments.files[2:]))
        return f"expected two files, got {more} as well; --inspect takes any number"
    if len(arguments.files) < 2:
        return "expected two files: python -m onnxslim IN.onnx OUT.onnx [options]"
    return ""


_APP = App(
    name="onnxslim",
    version=__version__,
    help="Make a trained ONNX model smaller and faster, and prove that it still does its job.",
    version_flags=["--version", "-v"],
    usage="Usage: python -m onnxslim IN.onnx OUT.onnx [--passes quant,lowrank] [--calib data.npz]",
)
_APP["--help"].group = _APP["--version"].group = Group("About", sort_key=9)

_WHAT = Group("What to do", sort_key=1)
_DATA = Group("Samples and the check", sort_key=2)
_HOW = Group("How to run", sort_key=3)
_ENDS = Group("Inputs and outputs", sort_key=2)
_SHOW = Group("What to show and keep", sort_key=4)


Texts = tuple[str, ...] | None


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts itself reads 1.5 as 2."""
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise ValueError(f'"{tokens[0].value}" is not a whole number') from error


def _many(group: Group) -> Parameter:
    """One or more texts behind one flag."""
    return Parameter(group=group, consume_multiple=True, negative="")


@_APP.default
def _arguments(
    source: Annotated[Path | None, Parameter("IN", group=_WHAT)] = None,
    output: Annotated[Path | None, Parameter("OUT", group=_WHAT)] = None,
    /,
    *more: Annotated[Path, Parameter(group=_WHAT, show=False)],
    passes: Annotated[str | None, Parameter(group=_WHAT)] = None,
    config: Annotated[Path | None, Parameter(group=_WHAT)] = None,
    target: Annotated[str | None, Parameter(group=_WHAT)] = None,
    skip_fusion_patterns: Annotated[Texts, _many(_WHAT)] = None,
    skip_optimizations: Annotated[Texts, _many(_WHAT)] = None,
    size_threshold: Annotated[int | None, Parameter(group=_WHAT, converter=_whole)] = None,
    input_shapes: Annotated[Texts, _many(_ENDS)] = None,
    inputs: Annotated[Texts, _many(_ENDS)] = None,
    outputs: Annotated[Texts, _many(_ENDS)] = None,
    dtype: Annotated[str | None, Parameter(group=_ENDS)] = None,
    calib: Annotated[str | None, Parameter(group=_DATA)] = None,
    eval: Annotated[str | None, Parameter(group=_DATA)] = None,
    metric: Annotated[str | None, Parameter(group=_DATA)] = None,
    max_drop: Annotated[float | None, Parameter(group=_DATA)] = None,
    preprocess: Annotated[str | None, Parameter(group=_DATA)] = None,
    check: Annotated[bool | None, Parameter(group=_DATA)] = None,
    model_check: Annotated[bool, Parameter(group=_DATA, negative="")] = False,
    model_check_inputs: Annotated[Texts, _many(_DATA)] = None,
    keep_best: Annotated[bool | None, Parameter(group=_DATA, negative="")] = None,
    threads: Annotated[int | None, Parameter(group=_HOW, converter=_whole)] = None,
    seed: Annotated[int | None, Parameter(group=_HOW, converter=_whole)] = None,
    cache: Annotated[Path | None, Parameter(group=_HOW)] = None,
    allow_slower: Annotated[bool | None, Parameter(group=_HOW, negative="")] = None,
    report: Annotated[Path | None, Parameter(group=_SHOW)] = None,
    dump: Annotated[Path | None, Parameter(group=_SHOW)] = None,
    quiet: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    inspect: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    dump_to_disk: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    save_as_external_data: Annotated[bool | None, Parameter(group=_SHOW, negative="")] = None,
    no_shape_infer: Annotated[bool, Parameter(group=_SHOW, negative="", show=False)] = False,
    verbose: Annotated[bool, Parameter(group=_SHOW, negative="", show=False)] = False,
    print_pipeline: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    list_passes: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
    list_rules: Annotated[bool, Parameter(group=_SHOW, negative="")] = False,
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
        Without it: simplify. An accuracy check comes last, unless --no-check.
    config
        A TOML file with the same settings, passes as [[pass]] tables; flags win over it.
    skip_fusion_patterns
        Rules of simplify that are not applied, by our name or by the other onnxslim's.
    skip_optimizations
        Of constant_folding, graph_fusion, dead_node_elimination, subexpression_elimination,
        weight_tying: what is left out, as far as it is a step of its own here.
    size_threshold
        Constants over this many bytes are not made by folding.
    input_shapes
        Static sizes: x:1,3,224,224 y:1,16. A size with a name is set wherever the name stands;
        -1 leaves a size as it is.
    inputs
        Values that become the inputs: x, or with an element type x:fp16; more as x,y.
    outputs
        Values that become the outputs; what they do not depend on goes away.
    dtype
        fp16 or fp32: the float type of everything, inputs and outputs included.
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
    check
        --no-check compares and times nothing: quick, and nothing is run.
    model_check
        As without it: the check is on, unless --no-check.
    model_check_inputs
        Sizes, or a file, for the made-up inputs of the check: x:1,3,224,224 y:data.npy.
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
        Write the whole result: R.html is a page to look at, any other name JSON.
    dump
        A folder for the model after each pass.
    quiet
        Print errors only.
    inspect
        Print what the given models are, side by side, and stop. So it is without OUT, too.
    dump_to_disk
        With --inspect: also write every node to NAME_model_info.csv.
    save_as_external_data
        Write weights to a file of their own, OUT.data.
    no_shape_infer
        Accepted: types are inferred where they are needed, and not written.
    verbose
        Accepted: what was done and left alone is always shown.
    print_pipeline
        Print the pipeline as it would run, and stop.
    list_passes
        Print every pass with its options, and stop.
    list_rules
        Print every rule of simplify, and stop; names for simplify{skip=...}.
    """
    skipped = _apart(skip_fusion_patterns), _apart(skip_optimizations), size_threshold
    chosen = any(given is not None for given in skipped)
    if chosen and (passes is not None or config is not None):
        raise UsageError(
            "--skip-fusion-patterns, --skip-optimizations and --size-threshold go without "
            "--passes and --config; write simplify{skip=... max_bytes=...} there"
        )
    if model_check and check is False:
        raise UsageError("--model-check and --no-check contradict each other")
    flags: dict[str, Any] = {
        "passes": _simplify(*skipped) if chosen else passes,
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
        "check": check,
        "input_shapes": input_shapes,
        "inputs": _apart(inputs),
        "outputs": _apart(outputs),
        "dtype": dtype,
        "check_inputs": model_check_inputs,
        "external": save_as_external_data,
    }
    files = tuple(file for file in (source, output, *more) if file is not None)
    only_shown = inspect or (len(files) == 1 and not any(v is not None for v in flags.values()))
    show = quiet, print_pipeline, list_passes, list_rules, only_shown, dump_to_disk
    return Arguments(files, flags, config, *show)


def _apart(names: Texts) -> Texts:
    """Names as they may be written, `a b` or `a,b`."""
    if names is None:
        return None
    return tuple(name for text in names for name in text.split(",") if name)


def _simplify(patterns: Texts, steps: Texts, size_threshold: int | None) -> tuple[PassSpec, ...]:
    """The passes of the other onnxslim's options; raises UsageError for unknown names."""
    from onnxslim import peer_names

    problems = peer_names.unknown_patterns(patterns or ())
    if problems := [*problems, *peer_names.unknown_steps(steps or ())]:
        raise UsageError(problems[0])
    return peer_names.passes_for(steps or (), patterns or (), size_threshold)
