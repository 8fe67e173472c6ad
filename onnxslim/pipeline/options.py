"""Between the options of a pass (typed dataclass fields) and their text, both ways."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, cast

from onnxslim.errors import OptionError
from onnxslim.pipeline.base import Pass
from onnxslim.pipeline.spec import PassSpec

P = TypeVar("P", bound=Pass)


@dataclass(frozen=True)
class OptionInfo:
    """One option of a pass in words, read off its dataclass field."""

    name: str
    type: str
    default: str
    range: str
    help: str


def options_of(cls: type[Pass]) -> tuple[OptionInfo, ...]:
    """Every option of a pass, in the order in which its class declares them."""
    hints = typing.get_type_hints(cls)
    return tuple(
        OptionInfo(
            name=f.name,
            type=_type_name(hints[f.name]),
            default=",".join(_texts(_default(f))),
            range=str(f.metadata.get("range", "")),
            help=str(f.metadata.get("help", "")),
        )
        for f in dataclasses.fields(cls)
    )


def from_spec(cls: type[P], spec: PassSpec) -> P:
    """The pass with these options; raises OptionError with what was given and expected."""
    fields = [f.name for f in dataclasses.fields(cls)]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, texts in spec.options.items():
        if key not in hints or key not in fields:
            raise OptionError(f"pass '{cls.name}' has no option '{key}'{nearest(key, fields)}")
        try:
            values[key] = _read(texts, hints[key])
        except ValueError as error:
            raise OptionError(f"{cls.name}: option '{key}': {error}") from error
    try:
        return cls(**values)
    except ValueError as error:
        raise OptionError(f"{spec}: {error}{_ranges(cls, values, str(error))}") from error


def to_spec(pass_: Pass) -> PassSpec:
    """The shortest spec that gives this pass again: options at their default are left out."""
    values = ((f, getattr(pass_, f.name)) for f in dataclasses.fields(pass_))
    return PassSpec(pass_.name, {f.name: _texts(v) for f, v in values if v != _default(f)})


def spec_of_table(table: Mapping[str, object], where: str) -> PassSpec:
    """The spec of a TOML table: ``name = "quant"`` and the options as further keys."""
    name = table.get("name")
    if not isinstance(name, str):
        raise OptionError(f'{where}: every [[pass]] needs a name, for example name = "quant"')
    options = {k.replace("-", "_"): _texts(v) for k, v in table.items() if k != "name"}
    return PassSpec(name, options)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the known word it may stand for, and all."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    meant = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{meant} there is: {', '.join(names) or 'none'}"


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _ranges(cls: type[Pass], given: Iterable[str], said: str) -> str:
    ranges = {f.name: str(f.metadata.get("range", "")) for f in dataclasses.fields(cls)}
    words = [f"{key}: {ranges[key]}" for key in given if ranges[key] not in said]
    return f" ({'; '.join(words)})" if words else ""


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple | list):
        return tuple(_text(v) for v in cast("tuple[object, ...]", value)) or ("",)
    return (_text(value),)


def _text(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type_name(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "|".join(map(str, args))
    if origin in (Union, types.UnionType):
        return "|".join(_type_name(a) for a in args)
    if origin is tuple:
        return f"{_type_name(args[0])},..."
    return "none" if hint is types.NoneType else str(hint.__name__)


def _read(texts: tuple[str, ...], hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(texts, args)
    if origin is tuple:
        return () if texts == ("",) else tuple(_read((t,), args[0]) for t in texts)
    if len(texts) != 1:
        raise ValueError(f"given {','.join(texts)!r}, expected one value")
    if origin is Literal:
        return _read_literal(texts[0], args)
    if hint not in _READERS:
        raise TypeError(f"options of type {hint} are not supported")
    return _READERS[hint](texts[0])


def _read_union(texts: tuple[str, ...], args: tuple[Any, ...]) -> Any:
    if texts == ("none",) and types.NoneType in args:
        return None
    kinds = [a for a in args if a is not types.NoneType]
    for kind in kinds[:-1]:
        try:
            return _read(texts, kind)
        except ValueError:
            continue
    return _read(texts, kinds[-1])


def _read_literal(text: str, args: tuple[Any, ...]) -> Any:
    for value in args:
        if str(value) == text:
            return value
    raise ValueError(f"given '{text}', expected one of {', '.join(map(str, args))}")


def _read_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"given '{text}', expected true or false")
    return text == "true"


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"given '{text}', expected a whole number") from None


def _read_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"given '{text}', expected a number") from None
    if not math.isfinite(value):
        raise ValueError(f"given '{text}', expected a finite number")
    return value


_READERS: Mapping[Any, Callable[[str], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: str,
}
