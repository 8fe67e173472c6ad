"""Whether arrays fit a model's inputs: names, rank, fixed dimensions, element type, finite values.

Each check raises DataError with one line that says what was given, what the model takes and
what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxslim.errors import DataError
from onnxslim.runtime.guards import is_list
from onnxslim.runtime.samples import Array, Feed
from onnxslim.runtime.types import TensorInfo

LABELS = "labels"


def fit_feed(feed: Mapping[str, Any], inputs: Sequence[TensorInfo], where: str) -> Feed:
    """The entries of a feed that are inputs, each checked and in the type that the model takes.

    `where` names the source and the sample in errors. Raises DataError.
    """
    require_names(feed, inputs, where)
    return {
        info.name: fit_value(feed[info.name], info, where) for info in inputs if info.name in feed
    }


def require_names(names: Iterable[str], inputs: Sequence[TensorInfo], where: str) -> None:
    """DataError unless every input that must be fed is there."""
    given = set(names)
    missing = [i.name for i in inputs if not i.optional and i.name not in given]
    if missing:
        raise DataError(
            f"{where}: no array for the model's input {_quoted(missing)}; it has "
            f"{_quoted(sorted(given - {LABELS})) or 'none'}; name the arrays as the inputs: "
            f"{_quoted([i.name for i in inputs])}"
        )


def unknown_names(names: Iterable[str], inputs: Sequence[TensorInfo]) -> list[str]:
    """The arrays that are neither inputs nor labels, and are ignored."""
    known = {i.name for i in inputs} | {LABELS}
    return [name for name in names if name not in known]


def fit_value(value: Any, info: TensorInfo, where: str) -> Any:
    """One input's array (or list of arrays, for a sequence), checked and cast."""
    where = f"{where}: input '{info.name}'"
    if value is None and info.optional:
        return None
    if info.sequence:
        if not is_list(value):
            raise DataError(f"{where}: the model takes a sequence; give a list of arrays")
        return [_fit_array(np.asarray(part), info, where) for part in value]
    return _fit_array(np.asarray(value), info, where)


def _fit_array(array: Array, info: TensorInfo, where: str) -> Array:
    _require_shape(array.shape, info, where)
    array = cast_array(array, info.dtype, where)
    if array.dtype.kind not in "biuOUS" and not _all_finite(array):
        what = "NaN" if np.isnan(array.astype(np.float32)).any() else "Inf"
        raise DataError(f"{where}: holds {what}; calibration and evaluation need finite values")
    return array


def _all_finite(array: Array) -> bool:
    if array.dtype.kind == "V":  # ml_dtypes
        array = array.astype(np.float32)
    return bool(np.isfinite(array).all())


def _require_shape(shape: tuple[int, ...], info: TensorInfo, where: str) -> None:
    if info.shape is None:
        return
    if len(shape) != len(info.shape):
        raise DataError(
            f"{where}: an array of rank {len(shape)}, {_dims(shape)}; "
            f"the model takes rank {len(info.shape)}, {_dims(info.shape)}"
        )
    for axis, (given, wanted) in enumerate(zip(shape, info.shape, strict=True)):
        if isinstance(wanted, int) and wanted != given:
            raise DataError(
                f"{where}: dimension {axis} is {given} in {_dims(shape)}; "
                f"the model takes {wanted} there, {_dims(info.shape)}"
            )


def cast_array(array: Array, dtype: np.dtype[Any] | None, where: str) -> Array:
    """The array in the model's element type, where that loses no more than rounding.

    Floats go to floats of another width and integers to integers of another width as long as
    every value fits; text becomes objects. Anything else is a DataError.
    """
    if dtype is None or array.dtype == dtype:
        return array
    if dtype == np.dtype(object) and array.dtype.kind in "US":
        return array.astype(object)
    if _is_float(array.dtype) and _is_float(dtype):
        with np.errstate(over="ignore"):
            result = array.astype(dtype)
        if _all_finite(array) and not _all_finite(result):
            raise DataError(f"{where}: values too large for the model's type, {dtype}")
        return result
    if _is_integer(array.dtype) and _is_integer(dtype):
        result = array.astype(dtype)
        if not np.array_equal(result.astype(array.dtype), array) or _changed_sign(array, result):
            raise DataError(f"{where}: values out of the range of the model's type, {dtype}")
        return result
    raise DataError(
        f"{where}: element type {array.dtype}; the model takes {dtype}; convert the array "
        f"(and scale it as the model was trained), for example with .astype('{dtype}')"
    )


def _changed_sign(array: Array, result: Array) -> bool:
    return array.dtype.kind != result.dtype.kind and bool(((array < 0) != (result < 0)).any())


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or (dtype.kind == "V" and "int" in dtype.name)


def _dims(shape: Iterable[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
