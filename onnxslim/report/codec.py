"""Between dataclasses and JSON, lossless: numbers that JSON lacks are written as "inf", "nan"."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, cast

from onnxslim.errors import ConfigError

T = TypeVar("T")

_NOT_IN_JSON = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(record: Any) -> str:
    """JSON text of a dataclass."""
    return json.dumps(_plain(dataclasses.asdict(record)), indent=2, allow_nan=False) + "\n"


def decode(cls: type[T], text: str) -> T:
    """The dataclass of JSON text; raises ConfigError that names the key that does not fit."""
    try:
        return cast(T, _typed(json.loads(text), cls, "report"))
    except ValueError as error:
        raise ConfigError(f"not a report of onnxslim: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in cast("list[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _typed_union(value, args, where)
    if dataclasses.is_dataclass(hint):
        return _typed_record(value, hint, where)
    if origin is tuple:
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(
            _typed(v, k, f"{where}[{i}]")
            for i, (v, k) in enumerate(zip(_is(value, list, where), kinds, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        items = _is(value, dict, where).items()
        return {k: _typed(v, args[1], f"{where}.{k}") for k, v in items}
    return _number(value, where) if hint is float else _is(value, hint, where)


def _typed_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in args:
        return None
    kinds = [a for a in args if a is not types.NoneType]
    exact = [k for k in kinds if k is type(value)]
    return _typed(value, (exact or kinds)[0], where)


def _typed_record(value: Any, cls: Any, where: str) -> Any:
    hints = typing.get_type_hints(cls)
    table = _is(value, dict, where)
    known = [f for f in dataclasses.fields(cls) if f.name in table]
    needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"{where}: no key '{missing[0]}'")
    return cls(**{f.name: _typed(table[f.name], hints[f.name], f"{where}.{f.name}") for f in known})


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _NOT_IN_JSON:
        return _NOT_IN_JSON[value]
    if type(value) not in (int, float):
        raise ValueError(f"{where}: given {value!r}, expected a number")
    return float(value)


def _is(value: Any, kind: type, where: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{where}: given {value!r}, expected {kind.__name__}")
    return value
