"""Running a model in ONNX Runtime, with any of its inner values as extra outputs."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.exact import exact
from onnxslim.runtime.lowbit import from_ort, to_ort
from onnxslim.runtime.samples import Array, Feed
from onnxslim.runtime.serialize import Serialized, serialize
from onnxslim.runtime.types import TensorInfo, input_infos
from onnxslim.scratch import Scratch

__all__ = [
    "Audited",
    "Optimize",
    "Session",
    "TensorInfo",
    "input_infos",
    "open_audited",
    "open_part",
    "open_session",
    "optimized_graph",
]

Optimize = Literal["all", "float", "extended", "basic", "exact", "none"]
"""What ONNX Runtime may make of a graph. "float": all but kernels of integers. With those it also
rounds float weights between quantized activations to 8 bits, one scale for each tensor. "exact":
basic, Q and DQ run one by one, and products of integers are those of processors that saturate no
sum, whatever processor is here."""

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "float": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "exact": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_SAVE_KEY = "session.optimized_model_external_initializers"
_LOWBIT = frozenset(  # what the runtime's Python binding has no numpy type for
    f"tensor({name})"
    for name in (
        *("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
        *("float4e2m1", "int4", "uint4", "int2", "uint2"),
    )
)


class Session:
    """A model that is ready to run."""

    def __init__(self, ort: Any, inputs: tuple[TensorInfo, ...], keep: object = None) -> None:
        self._ort = ort
        self._keep = keep  # the folder of weights that ONNX Runtime has mapped
        self.inputs = inputs
        self.outputs: tuple[str, ...] = tuple(o.name for o in ort.get_outputs())
        required = {i.name for i in ort.get_inputs()}
        self._absent = [i.name for i in inputs if i.optional and i.name in required]
        ends = [*ort.get_inputs(), *ort.get_outputs()]
        self._lowbit = any(end.type in _LOWBIT for end in ends)

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name for one feed; entries that are no inputs of the model are ignored.

        A sequence comes as a list of arrays. Raises RuntimeUnavailable when ONNX Runtime fails.
        """
        names = list(self.outputs if outputs is None else outputs)
        fed: dict[str, Any] = dict.fromkeys(self._absent)
        fed.update((i.name, feed[i.name]) for i in self.inputs if i.name in feed)
        with _explained("run"):
            if self._lowbit:
                values = self._ort.run_with_ort_values(
                    names, {k: to_ort(v) for k, v in fed.items()}
                )
                values = [from_ort(v) for v in values]
            else:
                values = self._ort.run(names, fed)
        return dict(zip(names, values, strict=True))

    def end_profiling(self) -> Path:
        """The file that the profiler wrote, if it was on."""
        return Path(self._ort.end_profiling())


def open_session(
    model: ir.Model,
    *,
    extra_outputs: Sequence[str] = (),
    threads: int = 1,
    optimize: Optimize = "all",
    spinning: bool = True,
) -> Session:
    """Open the model in ONNX Runtime on the CPU, which leaves the model as it is.

    `extra_outputs` are values of the main graph: computed ones, inputs or initializers. `threads`
    0 leaves their number to ONNX Runtime. External weights are read where they lie. `spinning`:
    threads wait for one another actively, which is faster where nothing else runs.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model; names the operator it lacks.
    """
    source = serialize(exact(model) if optimize == "exact" else model, extra_outputs)
    options = _options(source, threads, optimize)
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return Session(_open(source, options), input_infos(model), source.keep)


def open_part(
    model: ir.Model, names: Sequence[str], *, threads: int = 1, optimize: Optimize = "all"
) -> Session:
    """Open what these values of the main graph depend on, with them as the outputs. Its threads do
    not spin: others work on what it gives.

    Raises RuntimeUnavailable like `open_session`.
    """
    part = ir.snapshot(model)
    made = {str(value.name): value for node in part.graph for value in node.outputs}
    part.graph.outputs[:] = [made[name] for name in names if name in made]
    if part.graph.outputs:
        ir.Editor(part).remove_dead()
    part.graph.outputs.clear()  # named again below: ONNX Runtime infers their types
    return open_session(
        part, extra_outputs=names, threads=threads, optimize=optimize, spinning=False
    )


@dataclass(frozen=True)
class Audited:
    """A session and what ONNX Runtime made of its model on this machine: the optimized graph."""

    session: Session
    graph: ir.Model


def open_audited(model: ir.Model, *, threads: int = 1, optimize: Optimize = "all") -> Audited:
    """Open the model in ONNX Runtime like `open_session`, and read the graph that it runs.

    Raises RuntimeUnavailable like `open_session`.
    """
    return _audited(model, threads, optimize)


def optimized_graph(model: ir.Model, optimize: Optimize = "all") -> ir.Model:
    """What ONNX Runtime makes of the model on this machine: its own optimized graph.

    Raises RuntimeUnavailable like `open_session`.
    """
    return _audited(model, 1, optimize).graph


def profiled(
    model: ir.Model, feed: Feed, threads: int, enough: Callable[[int], bool]
) -> tuple[ir.Model, list[Mapping[str, Any]]]:
    """The optimized graph, and the events of ONNX Runtime's profiler for the kernels of some runs.

    Runs until `enough` says so of the number of runs; the first one is not profiled apart.
    Raises RuntimeUnavailable like `open_session` and `Session.run`.
    """
    with Scratch() as folder:
        opened, count = _audited(model, threads, "all", str(folder / "profile")), 0
        while not enough(count):
            opened.session.run(feed)
            count += 1
        events = json.loads(opened.session.end_profiling().read_text(encoding="utf-8"))
    return opened.graph, [e for e in events if e.get("cat") == "Node"]


def _audited(
    model: ir.Model, threads: int, optimize: Optimize, profile: str | None = None
) -> Audited:
    """`profile` begins the name of the file that the profiler writes, if it is to."""
    source = serialize(exact(model) if optimize == "exact" else model)
    folder = Scratch()
    options = _options(source, threads, optimize)
    path = folder.path / "optimized.onnx"
    options.optimized_model_filepath = str(path)
    if source.folder is not None:
        options.add_session_config_entry(f"{_SAVE_KEY}_file_name", "optimized.weights")
        options.add_session_config_entry(f"{_SAVE_KEY}_min_size_in_bytes", "1024")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    session = Session(_open(source, options), input_infos(model), source.keep)
    graph = ir.read_unchecked(path)
    weakref.finalize(graph, folder.close)  # its weights are mapped from there
    return Audited(session, graph)


def _options(source: Serialized, threads: int, optimize: Optimize) -> Any:
    import onnxruntime as rt

    options = cast("Any", rt).SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(
        cast("Any", rt).GraphOptimizationLevel, _LEVELS[optimize]
    )
    if optimize == "float":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads != 1:  # threads of an idle session would take time from the next one
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if source.folder is not None:
        options.add_session_config_entry(_FOLDER_KEY, source.folder)
    return options


def _open(source: Serialized, options: Any) -> Any:
    import onnxruntime as rt

    with _explained("open"):
        return rt.InferenceSession(
            source.data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )


@contextmanager
def _explained(what: str) -> Generator[None, None, None]:
    """Any error of ONNX Runtime as RuntimeUnavailable; its exceptions share no base class."""
    try:
        yield
    except Exception as error:
        raise RuntimeUnavailable(explain(str(error), what)) from error


_MISSING = (  # how ONNX Runtime says that it has no schema of an operator: domain, operator
    re.compile(r"Fatal error: (?P<domain>[^:\s]*):(?P<op>\w+)\(-?\d+\) is not a registered"),
    re.compile(r"No Op registered for (?P<op>\w+) with domain_version of (?P<version>\d+)"),
)
_NO_KERNEL = re.compile(r"Could not find an implementation for (?P<op>[\w.:]+)\((?P<version>\d+)\)")
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")


def explain(message: str, what: str) -> str:
    """One line for an error of ONNX Runtime, with the operator's name where that is missing."""
    for pattern in _MISSING:
        if (match := pattern.search(message)) is not None:
            found = match.groupdict()
            operator = "::".join(filter(None, (found.get("domain"), found["op"])))
            version = f" (version {found['version']})" if found.get("version") else ""
            return (
                f"ONNX Runtime has no operator {operator}{version}, which the model uses; "
                "only what need not run the model can be done"
            )
    if (match := _NO_KERNEL.search(message)) is not None:
        operator = f"{match['op']} (version {match['version']})"
        return (
            f"ONNX Runtime has no kernel of {operator} for the types that the model gives it; "
            "only what need not run the model can be done"
        )
    line = " ".join(_STATUS.sub("", message).split())
    return f"ONNX Runtime cannot {what} the model: {line[:500]}"
