"""`slim`: the call of the other onnxslim (PyPI, 0.1.98), answered by this compiler."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from onnxslim import ir, peer_names
from onnxslim.config import Request, read_check_inputs, read_shapes
from onnxslim.core.pattern.apply import RegisteredPatterns
from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS
from onnxslim.driver import compile_model
from onnxslim.errors import CheckFailed, ConfigError
from onnxslim.files import write_text
from onnxslim.ir.files import check_target
from onnxslim.pipeline.base import Pass
from onnxslim.pipeline.spec import PassSpec

LEAST_SQNR = 50.0
"""dB that `model_check` asks for: an error of 0.3 % of the signal, far above rounding."""

LEAST_SQNR_HALF = 20.0
"""The same where the element type changes."""


def slim(
    model: Any,
    output_model: str | os.PathLike[str] | None = None,
    *,
    model_check: bool = False,
    input_shapes: Sequence[str] | Mapping[str, Sequence[int]] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    no_shape_infer: bool = False,
    skip_optimizations: Sequence[str] | None = None,
    dtype: str | None = None,
    skip_fusion_patterns: Sequence[str] | None = None,
    size_threshold: int | None = None,
    inspect: bool = False,
    dump_to_disk: bool = False,
    save_as_external_data: bool = False,
    model_check_inputs: Sequence[str] | None = None,
    verbose: bool = False,
) -> Any:
    """The model in fewer nodes, with the same outputs; the one given stays as it is.

    Args:
        model: A path, bytes, an `onnx.ModelProto`, an `onnx_ir.Model` or a `gs.Graph`; or a list
            of these, of which an overview is printed and nothing is changed.
        output_model: Where to save it; a table of what became of it is printed.
        model_check: Run both in ONNX Runtime on made-up inputs and compare the outputs.
        input_shapes: `["x:1,3,224,224"]` or `{"x": [1, 3, 224, 224]}`; see `compress`.
        inputs: Values that become the inputs, `"x"` or with a type `"x:fp16"`.
        outputs: Values that become the outputs; what they do not depend on goes away.
        no_shape_infer: Do not write the types and shapes of inner values into the result.
        skip_optimizations: Of constant_folding, graph_fusion, dead_node_elimination,
            subexpression_elimination, weight_tying: what is not done, as far as it is a step of
            its own here.
        dtype: `fp16` or `fp32`: the float type of everything, inputs and outputs included.
        skip_fusion_patterns: Names of patterns (`FusionGemm`) or of rules that are not applied.
        size_threshold: Constants over this many bytes are not made by folding.
        inspect: Nothing, as there: an overview is what a list of models is given for.
        dump_to_disk: With a list: also write the nodes to `NAME_model_info.csv`.
        save_as_external_data: Save weights in a file of their own.
        model_check_inputs: Sizes or a file for the check: `["x:1,3,224,224", "y:data.npy"]`.
        verbose: Print what each pass did and left alone.

    Returns:
        A `ModelProto` for a path, else the kind that was given; None when it was saved to
        `output_model`, after an overview, and with a warning when `model_check` failed.

    Raises:
        onnxslim.errors.OnnxSlimError: What was given is wrong; one line says what to do.
    """
    if isinstance(model, (list, tuple)):
        show_models(cast("Sequence[Any]", model), dump_to_disk)
        return None
    request = Request(
        passes=_passes(
            skip_optimizations or (), skip_fusion_patterns or (), size_threshold, model_check, dtype
        ),
        check=model_check,
        input_shapes=read_shapes(input_shapes or {}),
        inputs=tuple(inputs or ()),
        outputs=tuple(outputs or ()),
        dtype=dtype,
        check_inputs=read_check_inputs(model_check_inputs or ()) if model_check else {},
        allow_slower=True,  # nothing is timed
    )
    job = _Job(model, None if output_model is None else Path(output_model), request)
    return job.run(not no_shape_infer, save_as_external_data, verbose)


class _Job:
    """One model on its way through the compiler."""

    def __init__(self, source: Any, output: Path | None, request: Request) -> None:
        self._source, self._output, self._request = source, output, request
        self._kind: ir.Kind = ir.kind_of(source)

    def run(self, declare: bool, external: bool, verbose: bool) -> Any:
        """Compile, save or return, and say what has to be said."""
        start = perf_counter()
        if self._output is not None:
            check_target(self._output)
        model = ir.load(self._source)
        before = self._overview(model)
        try:
            result, report = compile_model(model, self._request)
        except CheckFailed as error:
            warnings.warn(f"onnxslim.slim returns None: {error}", stacklevel=3)
            return None
        if self._request.check and report.check is None:
            notes = [note for entry in report.passes for note in entry.notes]
            warnings.warn(f"onnxslim.slim: {' '.join(notes)}", stacklevel=3)
        if declare:
            ir.declare_types(result)
        if verbose:
            from onnxslim.report.table import result_tables

            _print(result_tables(report))
        if self._output is None:
            kind: ir.Kind = "proto" if self._kind == "path" else self._kind
            return ir.to_kind(result, kind)
        ir.save(result, self._output, True if external else None)
        self._show(before, result, perf_counter() - start)
        return None

    def _overview(self, model: ir.Model) -> Any:
        if self._output is None:
            return None
        from onnxslim.report.overview import overview

        return overview(model, _title(self._source))

    def _show(self, before: Any, result: ir.Model, seconds: float) -> None:
        from onnxslim.report.overview import overview, overview_table

        after = overview(result, str(self._output))
        _print(overview_table([before, after], seconds))


def show_models(models: Iterable[Any], dump_to_disk: bool = False) -> None:
    """Print models side by side; `dump_to_disk` writes their nodes as CSV files, too.

    Raises ModelError, OutputError.
    """
    from onnxslim.report.overview import nodes_csv, overview, overview_table

    loaded = [(_title(source), ir.load(source)) for source in models]
    if not loaded:
        raise ConfigError("an empty list of models; expected at least one")
    _print(overview_table([overview(model, title) for title, model in loaded]))
    for title, model in loaded if dump_to_disk else ():
        path = Path(f"{title}_model_info.csv")
        write_text(path, nodes_csv(model))
        _print(f"nodes of {title}: {path}")


def _passes(
    steps: Sequence[str],
    patterns: Sequence[str],
    size_threshold: int | None,
    model_check: bool,
    dtype: str | None,
) -> tuple[PassSpec | Pass, ...]:
    """The passes of a call; what other packages have registered runs between two of ours."""
    for problem in (
        *peer_names.unknown_steps(steps),
        *peer_names.unknown_patterns(p for p in patterns if p not in DEFAULT_FUSION_PATTERNS),
    ):
        warnings.warn(f"onnxslim.slim: {problem}; nothing is skipped for it", stacklevel=4)
    passes: tuple[PassSpec | Pass, ...]
    passes = peer_names.passes_for(steps, patterns, size_threshold)
    if "graph_fusion" not in steps and set(DEFAULT_FUSION_PATTERNS) - set(patterns):
        passes = (*passes, RegisteredPatterns(skip=tuple(patterns)), *passes)
    if not model_check:
        return passes
    least = LEAST_SQNR if dtype is None else LEAST_SQNR_HALF
    return (*passes, PassSpec("check", {"min_sqnr": (str(least),)}))


def _title(source: Any) -> str:
    return os.path.basename(source) if ir.kind_of(source) == "path" else "OnnxModel"


def _print(what: Any) -> None:
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False).print(what)
