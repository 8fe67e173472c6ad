"""Models in and out: path, bytes, `ModelProto`, `ir.Model`, `gs.Graph`, and back to the kind."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import onnx_ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from onnxslim.errors import ModelError
from onnxslim.ir.carve import carve, skeleton
from onnxslim.ir.collector import paused
from onnxslim.ir.external import bind, external_tensors
from onnxslim.ir.light import PROTO_LIMIT, root_cause, serialized
from onnxslim.ir.mapped import Source
from onnxslim.ir.names import fix_names
from onnxslim.ir.preflight import is_small, preflight
from onnxslim.ir.state import snapshot
from onnxslim.ir.swap import inside, swapped
from onnxslim.ir.types import Model
from onnxslim.ir.verify import check_proto, verify, verify_own_rules
from onnxslim.ir.walk import LISTED_INPUT, weight_bytes

GraphSurgeon: TypeAlias = Any  # imported only by who gives one; it has no types

ModelLike: TypeAlias = str | os.PathLike[str] | bytes | ModelProto | Model | GraphSurgeon
"""A path, serialized bytes, an `onnx.ModelProto`, an `onnx_ir.Model` or a `gs.Graph`."""

_LFS = b"version https://git-lfs.github.com/spec/"

Kind = Literal["path", "bytes", "proto", "model", "gs"]

SOURCE = "onnxslim.source"
"""Key of `Model.meta`: the absolute path that the model was loaded from."""

DATA_FILES = "onnxslim.data_files"
"""Key of `Model.meta`: the absolute paths of the external data files that it was loaded with."""


def data_files(model: Model) -> frozenset[Path]:
    """The external data files that the model was loaded with."""
    return cast("frozenset[Path]", model.meta.get(DATA_FILES, frozenset()))


def kind_of(source: ModelLike) -> Kind:
    """Which of the five kinds of model it is.

    Raises:
        ModelError: none of them.
    """
    if isinstance(source, (str, os.PathLike)):
        return "path"
    if isinstance(source, bytes):
        return "bytes"
    if isinstance(source, ModelProto):
        return "proto"
    if isinstance(source, Model):
        return "model"
    surgeon = sys.modules.get("onnx_graphsurgeon")  # who gives a gs.Graph has imported it
    if surgeon is not None and isinstance(source, surgeon.Graph):
        return "gs"
    raise ModelError(
        f"got a {type(source).__name__}; expected a path, bytes, an onnx.ModelProto, "
        "an onnx_ir.Model or an onnx_graphsurgeon.Graph"
    )


def load(source: ModelLike, *, folder: str | os.PathLike[str] | None = None) -> Model:
    """The model in the IR, checked; what was given is never changed, weights are shared.

    Weights stay in the file, or in its external files, and are mapped when they are read. Other
    files may be renamed over these. Do not write into them while the model is in use: reading a
    weight raises ModelError if the model file was changed; a data file is not watched. `folder`
    is where the external data of bytes or a `ModelProto` lie; a path brings its own.

    Raises:
        ModelError: it is missing, empty, truncated, not ONNX, invalid, or holds what is refused.
    """
    if isinstance(source, (str, os.PathLike)):
        return _load_file(Path(cast("str | os.PathLike[str]", source)))
    if isinstance(source, bytes):
        return _from_source(Source(source), "the given bytes", folder)
    if isinstance(source, ModelProto):
        return from_proto(source, folder)
    if isinstance(source, Model):
        return prepared(snapshot(source))
    kind_of(source)  # refuses what is no gs.Graph either
    from onnxslim.ir.interop import from_gs

    return from_gs(source)


def read_unchecked(path: str | os.PathLike[str]) -> Model:
    """What a runtime wrote for itself: it mixes versions of operators that no checker accepts."""
    return onnx_ir.load(path)


def to_kind(model: Model, kind: Kind) -> Any:
    """The model as the kind that `kind_of` named; itself for a path, which `save` is for."""
    if kind == "bytes":
        return to_bytes(model)
    if kind == "proto":
        return to_proto(model)
    if kind == "gs":
        from onnxslim.ir.interop import to_gs

        return to_gs(model)
    return model


def from_proto(proto: ModelProto, folder: str | os.PathLike[str] | None = None) -> Model:
    """The IR of a proto: pre-flight, conversion, external data, unique names, verification."""
    with paused():
        proto = preflight(proto)
        return _finished(convert(proto), proto, folder)


def _finished(model: Model, proto: ModelProto, folder: str | os.PathLike[str] | None) -> Model:
    """The model bound to its external data, with unique names, verified."""
    outside = external_tensors(model)
    if folder is not None:
        files = bind(model, Path(folder)) if outside else ()
        model.meta[DATA_FILES] = frozenset(path.absolute() for path in files)
    elif outside:
        raise ModelError(
            f"the weight '{outside[0].name}' lies in the external file '{outside[0].location}'; "
            "give the path of the model, or the folder of that file"
        )
    return prepared(model, proto if is_small(proto) and not outside else None)


def convert(proto: ModelProto) -> Model:
    """Conversion alone."""
    with _quiet():
        try:
            return onnx_ir.from_proto(proto)
        except Exception as error:
            raise ModelError(f"invalid graph: {root_cause(error)}") from error


def prepared(model: Model, proto: ModelProto | None = None) -> Model:
    """What every model goes through: unique names, one spelling of the domain, verification.

    `proto` is what the model was made of, if ONNX's checker can read that as it is.
    """
    imports = [model.opset_imports, *(f.opset_imports for f in model.functions.values())]
    for versions in imports:
        if (version := versions.pop("ai.onnx", None)) is not None:
            versions.setdefault("", version)
    fix_names(model)
    if model.ir_version < 4:
        for value in model.graph.initializers.values():
            value.meta[LISTED_INPUT] = True
    if proto is None:
        verify(model)
    else:
        verify_own_rules(model)
        check_proto(proto)
    return model


def _load_file(path: Path) -> Model:
    try:
        source = Source(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; expected an ONNX model") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: is a folder; expected the ONNX file in it") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with paused():
            model = _from_source(source, "the file", path.absolute().parent)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    model.meta[SOURCE] = path.absolute()
    return model


def _from_source(source: Source, what: str, folder: str | os.PathLike[str] | None) -> Model:
    """The model that the bytes hold. Its big weights stay where they are."""
    carved = carve(source.view) if len(source.view) <= PROTO_LIMIT else None
    source.forget()
    if carved is not None and carved.spans:
        proto = preflight(_parsed(carved.skeleton, what))
        model = convert(proto)
        if carved.attach(model, source):
            return _finished(model, proto, folder)
    return from_proto(_parsed(source.view, what), folder)


def _parsed(data: bytes | memoryview, what: str) -> ModelProto:
    if not data:
        raise ModelError(f"{what} is empty; expected an ONNX model")
    if len(data) > PROTO_LIMIT:
        raise ModelError(
            f"{what} has over 2 GB, more than a proto can; keep weights in external data"
        )
    try:
        proto: ModelProto = ModelProto.FromString(bytes(data))
    except DecodeError as error:
        # A serialized model starts with its ir_version: field 1, a small varint.
        looks_right = len(data) > 1 and data[0] == 0x08 and 0 < data[1] < 0x40
        state = "is truncated or damaged" if looks_right else "is not an ONNX model"
        todo = "fetch or export it again"
        if bytes(data[: len(_LFS)]) == _LFS:
            todo = "it stands for one in Git LFS: run git lfs pull"
        raise ModelError(f"{what} {state}; {todo}") from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{what} is not an ONNX model: it has no IR version or no graph")
    return proto


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep onnx-ir from logging what our own checks report."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def to_proto(model: Model) -> ModelProto:
    """The model as a proto with all weights inside.

    Raises:
        ModelError: the weights do not fit into a proto (2 GB).
    """
    size = weight_bytes(model)
    if size > PROTO_LIMIT:
        raise ModelError(
            f"the weights take {size / 1e9:.1f} GB, a proto holds 2 GB; save the model to a path"
        )
    fix_names(model)
    with swapped(model, inside):
        return serialized(model)


def to_bytes(model: Model) -> bytes:
    """The serialized model with all weights inside; up to 2 GB (else ModelError)."""
    fix_names(model)
    made = skeleton(model)
    parts, file = made.parts(), BytesIO()
    made.write(parts, file)
    return file.getvalue()
