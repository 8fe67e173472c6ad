"""What the user asks for, from flags and from a TOML file, checked as far as words go."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

from onnxslim.errors import ConfigError
from onnxslim.pipeline.base import Pass
from onnxslim.pipeline.options import nearest, spec_of_table
from onnxslim.pipeline.spec import PassSpec, parse_pipeline
from onnxslim.runtime.data import DataSpec
from onnxslim.runtime.images import Preprocess

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


DTYPES: Mapping[str, str] = {
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float32": "float32",
}
"""How an element type may be written."""


_KINDS: Mapping[str, tuple[type, str]] = {
    "metric": (str, "the name of a metric, or of a function as 'module:function'"),
    "max_drop": (Real, "a number, for example 0.01"),
    "target": (str, "the name of a target, for example 'ort-cpu'"),
    "threads": (Integral, "a whole number"),
    "seed": (Integral, "a whole number"),
}
"""What a library's user may give as something else."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run of the compiler; the fields are the flags of the same name."""

    passes: tuple[PassSpec | Pass, ...] = (PassSpec("simplify"),)
    calib: DataSpec | None = None
    eval: DataSpec | None = None
    metric: str | None = None
    max_drop: float | None = None
    target: str = "ort-cpu"
    preprocess: str | Preprocess | None = None
    report: Path | None = None
    threads: int = 1
    seed: int = 0
    cache: Path | None = None
    dump: Path | None = None
    keep_best: bool = False
    allow_slower: bool = False
    check: bool = True
    input_shapes: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict[str, "tuple[int, ...]"]
    )
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    dtype: str | None = None  # of the whole model, inputs and outputs included
    check_inputs: Mapping[str, Path | tuple[int, ...]] = field(
        default_factory=dict[str, "Path | tuple[int, ...]"]
    )
    external: bool | None = None  # weights in a file of their own; None: where they were

    def __post_init__(self) -> None:
        """Raises ConfigError for what does not go together, or is of another type."""
        for name, (kind, expected) in _KINDS.items():
            given = getattr(self, name)
            if given is not None and (not isinstance(given, kind) or isinstance(given, bool)):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} {given!r}: expected {expected}")
        for flag, given in (("--calib", self.calib), ("--eval", self.eval)):
            if isinstance(given, str) and not given:
                raise ConfigError(f"{flag} '': expected an .npz, a folder, or module:function")
        if self.threads < 1:
            raise ConfigError(f"--threads {self.threads}: expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: expected at least 0")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise ConfigError(f"--max-drop {self.max_drop}: expected 0 or more, for example 0.01")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype}: expected one of {', '.join(DTYPES)}")
        needs_check = {
            "--metric": self.metric is not None,
            "--max-drop": self.max_drop is not None,
            "--eval": self.eval is not None,
            "--keep-best": self.keep_best,
            "--model-check-inputs": bool(self.check_inputs),
        }
        if not self.check and (wrong := [flag for flag, given in needs_check.items() if given]):
            raise ConfigError(
                f"--no-check does not go with {wrong[0]}, which is for the check; drop one of them"
            )


def from_flags(flags: Mapping[str, Any], config: Path | None = None) -> Request:
    """The request of flags, which win over the TOML file; None stands for a flag not given.

    Raises ConfigError, OptionError, PipelineSyntaxError.
    """
    values = {} if config is None else _from_toml(config)
    values.update({k: v for k, v in flags.items() if v is not None})
    if isinstance(values.get("passes"), str):
        values["passes"] = tuple(parse_pipeline(values["passes"]))
    for key in ("inputs", "outputs"):
        if key in values:
            values[key] = read_names(key, values[key])
    if "input_shapes" in values:
        values["input_shapes"] = read_shapes(values["input_shapes"])
    if "check_inputs" in values:
        values["check_inputs"] = read_check_inputs(values["check_inputs"])
    return Request(**values)


def read_passes(given: object) -> tuple[PassSpec | Pass, ...]:
    """A pipeline as text, or its parts: texts, specs and passes.

    Raises ConfigError, PipelineSyntaxError.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[PassSpec | Pass] = []
    for part in cast("Iterable[object]", given if several else [given]):
        if isinstance(part, str):
            found += parse_pipeline(part)
        elif isinstance(part, PassSpec | Pass):
            found.append(part)
        else:
            raise ConfigError(
                f"passes: {part!r}: expected text such as 'simplify,quant', or passes"
            )
    return tuple(found)


def read_shapes(given: object) -> dict[str, tuple[int, ...]]:
    """Shapes by input: of texts such as `x:1,3,224,224`, or of a mapping to lists of sizes.

    Raises ConfigError.
    """
    if isinstance(given, Mapping):
        pairs = list(cast("Mapping[str, object]", given).items())
    elif isinstance(given, list | tuple):
        pairs = [_shape_pair(text) for text in cast("Sequence[object]", given)]
    else:
        raise ConfigError(f"input shapes: {given!r}: expected x:1,3,224,224 or a table x = [1, 3]")
    found: dict[str, tuple[int, ...]] = {}
    for name, sizes in pairs:
        if name in found:
            raise ConfigError(f"input shapes: '{name}' is given twice")
        found[name] = _sizes(name, sizes)
    return found


def read_check_inputs(texts: Sequence[str]) -> dict[str, Path | tuple[int, ...]]:
    """Sizes or an .npy file by input, of texts such as `x:1,3,224,224` and `y:data.npy`.

    Raises ConfigError.
    """
    files = {name: Path(file) for name, _, file in (t.rpartition(":") for t in texts)
             if name and file.endswith(".npy")}  # fmt: skip
    shapes = [t for t in texts if not t.endswith(".npy")]
    return {**files, **read_shapes(shapes)}


def _shape_pair(text: object) -> tuple[str, object]:
    name, colon, sizes = str(text).rpartition(":")
    if not (name and colon):
        raise ConfigError(f"input shapes: {text}: expected NAME:SIZES, for example x:1,3,224,224")
    return name, [size.strip() for size in sizes.split(",")] if sizes.strip() else []


def _sizes(name: str, sizes: object) -> tuple[int, ...]:
    try:
        listed = list(cast("Iterable[Any]", sizes))
        return tuple(int(s) if isinstance(s, str) else operator.index(s) for s in listed)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"input shapes: {name}: {sizes!r}: expected whole numbers, for example 1,3,224,224"
        ) from error


def read_names(key: str, given: object) -> tuple[str, ...]:
    """One name, or a list of some; raises ConfigError."""
    if isinstance(given, str):
        return (given,)
    names = cast("Sequence[object]", given) if isinstance(given, list | tuple) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{key}: {given!r}: expected names of values, for example {key} = ['x']")
    return tuple(cast("Sequence[str]", names))


_PATHS = ("calib", "eval", "report", "cache", "dump")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "passes": (str,),
    "calib": (str,),
    "eval": (str,),
    "metric": (str,),
    "max_drop": (float, int),
    "target": (str,),
    "preprocess": (str,),
    "report": (str,),
    "threads": (int,),
    "seed": (int,),
    "cache": (str,),
    "dump": (str,),
    "keep_best": (bool,),
    "allow_slower": (bool,),
    "check": (bool,),
    "input_shapes": (dict, list),
    "inputs": (list,),
    "outputs": (list,),
    "dtype": (str,),
    "external": (bool,),
}


def _from_toml(path: Path) -> dict[str, Any]:
    table = _read_toml(path)
    passes = table.pop("pass", None)
    values = {key.replace("-", "_"): value for key, value in table.items()}
    for key, value in values.items():
        if key not in _TYPES:
            raise ConfigError(f"{path}: no setting '{key}'{nearest(key, [*_TYPES, 'pass'])}")
        if type(value) not in _TYPES[key]:
            wanted = " or ".join(t.__name__ for t in _TYPES[key])
            raise ConfigError(f"{path}: {key} = {value!r}: expected {wanted}")
    if passes is not None:
        if "passes" in values:
            raise ConfigError(f"{path}: has both passes = ... and [[pass]]; keep one of them")
        values["passes"] = _pass_tables(passes, path)
    for key in _PATHS:
        if key in values:
            values[key] = _beside(path, key, values[key])
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", _toml.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"--config {path}: not TOML: {error}") from error


def _pass_tables(tables: object, path: Path) -> tuple[PassSpec, ...]:
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{path}: 'pass' must be written as [[pass]] tables")
    found: list[PassSpec] = []
    for table in cast("list[object]", tables):
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: 'pass' must be written as [[pass]] tables")
        found.append(spec_of_table(cast("dict[str, object]", table), str(path)))
    return tuple(found)


def _beside(config: Path, key: str, text: str) -> str | Path:
    """A path of the file is relative to the file; `module:function` stays as it is."""
    beside = config.parent / text
    if key not in ("calib", "eval"):
        return beside
    return beside if beside.exists() or ":" not in text else text
