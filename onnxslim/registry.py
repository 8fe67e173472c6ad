"""Where a pass of a name is: built in, or from a package with an entry point `onnxslim.passes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from onnxslim.errors import ConfigError, OptionError
from onnxslim.pipeline.base import Pass
from onnxslim.pipeline.options import OptionInfo, from_spec, nearest, options_of, to_spec
from onnxslim.pipeline.spec import PassSpec, parse_pipeline

GROUP = "onnxslim.passes"

BUILTIN: Mapping[str, str] = {
    "fold": "onnxslim.passes.fold.fold:Fold",
    "simplify": "onnxslim.passes.simplify.simplify:Simplify",
    "prune": "onnxslim.passes.prune.prune:Prune",
    "lowrank": "onnxslim.passes.lowrank.lowrank:Lowrank",
    "distill": "onnxslim.passes.distill.distill:Distill",
    "quant": "onnxslim.passes.quant.quant:Quant",
    "cast": "onnxslim.passes.cast.cast:Cast",
    "check": "onnxslim.passes.check.check:Check",
}


@dataclass(frozen=True)
class PassInfo:
    """A pass in words: what `--list-passes` shows."""

    name: str
    summary: str
    origin: str  # "built in", or the distribution that brings it
    options: tuple[OptionInfo, ...] = ()
    problem: str = ""  # why it cannot be loaded


def names() -> tuple[str, ...]:
    """The names of all passes: the built-in ones, then those of other packages."""
    return (*BUILTIN, *(n for n in sorted(_plugins()) if n not in BUILTIN))


def find(name: str) -> type[Pass]:
    """The class of a pass; raises OptionError with the nearest name when there is none."""
    if name in BUILTIN:
        module, _, attribute = BUILTIN[name].partition(":")
        return _checked(name, getattr(import_module(module), attribute), "built in")
    plugins = _plugins()
    if name not in plugins:
        raise OptionError(f"no pass '{name}'{nearest(name, names())}")
    if len(plugins[name]) > 1:
        owners = ", ".join(sorted(_origin(e) for e in plugins[name]))
        raise ConfigError(f"pass '{name}' comes from several packages ({owners}); uninstall one")
    return _load(plugins[name][0])


def build(passes: str | Iterable[PassSpec | Pass]) -> tuple[Pass, ...]:
    """The passes of a pipeline text, or of specs and passes; raises what `find` raises,
    PipelineSyntaxError and OptionError."""
    parts = parse_pipeline(passes) if isinstance(passes, str) else passes
    return tuple(_built(part) for part in parts)


def _built(part: PassSpec | Pass) -> Pass:
    """The options of our own passes are read as text is: a dataclass takes any type."""
    own = part.name in BUILTIN and isinstance(part, Pass) and type(part) is find(part.name)
    if isinstance(part, Pass) and not own:
        return part
    spec = to_spec(part) if isinstance(part, Pass) else part
    return from_spec(find(spec.name), spec)


def list_passes() -> tuple[PassInfo, ...]:
    """Every pass with its options; one that cannot be loaded is listed with the reason."""
    return tuple(_info(name) for name in names())


def _info(name: str) -> PassInfo:
    plugins = _plugins().get(name, ())
    origin = "built in" if name in BUILTIN else ", ".join(_origin(e) for e in plugins)
    try:
        cls = find(name)
    except (OptionError, ConfigError) as error:
        return PassInfo(name, "", origin, problem=str(error))
    return PassInfo(name, cls.summary, origin, options_of(cls))


def _plugins() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if entry not in found.setdefault(entry.name, []):  # a package may be on the path twice
            found[entry.name].append(entry)
    return found


def _load(entry: EntryPoint) -> type[Pass]:
    try:
        loaded = entry.load()
    except Exception as error:
        raise ConfigError(
            f"pass '{entry.name}' of package {_origin(entry)} cannot be imported "
            f"({type(error).__name__}: {error}); update or uninstall the package"
        ) from error
    return _checked(entry.name, loaded, _origin(entry))


def _checked(name: str, loaded: object, origin: str) -> type[Pass]:
    if not (isinstance(loaded, type) and issubclass(loaded, Pass)):
        raise ConfigError(
            f"pass '{name}' ({origin}) is {loaded!r}, not a subclass of onnxslim.Pass"
        )
    if loaded.name != name:
        raise ConfigError(f"pass '{name}' ({origin}) calls itself '{loaded.name}'; make them equal")
    return loaded


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
