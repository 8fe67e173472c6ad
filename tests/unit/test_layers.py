"""Imports go downwards only, and each heavy or foreign package has one door."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import onnxslim

ROOT = Path(onnxslim.__file__).parent

# From the bottom up; what shares a line does not import each other.
LAYERS: list[set[str]] = [
    {"errors", "leftovers"},
    {"ir", "scratch"},
    {"runtime", "targets"},
    {"pipeline"},
    {"analyses"},
    {"rewrite"},
    {"passes"},
    {"registry", "files", "peer_names"},
    {"report", "config"},
    {"environment", "apart"},
    {"driver"},
    {"core", "third_party"},
    {"api", "arguments", "dropin"},
    {"cli"},
    {"__main__", "__init__"},
]

ONNX = {"onnx", "onnx_ir", "onnx_graphsurgeon"}
LATE = {"scipy", "onnxruntime", "rich", "onnx_graphsurgeon"}


def _files() -> list[Path]:
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(ROOT, followlinks=True)  # passes/ is a link
        for name in names
        if name.endswith(".py")
    ]
    return sorted(found)


def test_all_parts_are_walked() -> None:
    walked = {_part(path) for path in _files()}
    assert {"ir", "pipeline", "passes", "errors"} <= walked


def _part(path: Path) -> str:
    """The layer's member that a file belongs to: its first folder, or its own name at the top."""
    inside = path.relative_to(ROOT)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, late imports included."""
    package = ["onnxslim", *path.relative_to(ROOT).with_suffix("").parts][:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _rank(part: str) -> int:
    ranks = [index for index, members in enumerate(LAYERS) if part in members]
    assert ranks, f"'{part}' has no layer: add it to LAYERS"
    return ranks[0]


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_layers_below(path: Path) -> None:
    own = _part(path)
    for line, name in _imported(path):
        words = name.split(".")
        if words[0] != "onnxslim" or len(words) < 2 or words[1].startswith("__"):
            continue
        other = words[1]
        if not (ROOT / other).is_dir() and not (ROOT / f"{other}.py").exists():
            other = "__init__"  # a name of the package itself
        if other != own:
            assert _rank(other) < _rank(own), f"{path}:{line}: {own} imports {name}"


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_ir_imports_onnx(path: Path) -> None:
    found = [(line, name) for line, name in _imported(path) if name.split(".")[0] in ONNX]
    assert _part(path) == "ir" or not found, f"{path}: {found}"


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_the_passes_folder_twice(path: Path) -> None:
    assert "passes" not in {name.split(".")[0] for _, name in _imported(path)}


@pytest.mark.parametrize("name", ["quant"])
def test_the_folders_of_a_pass_import_one_way(name: str) -> None:
    root = ROOT / "passes" / name
    folders = {path.parent.name for path in root.glob("*/__init__.py")}
    assert len(folders) > 1
    below: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in root.glob("*/*.py"):
        for _, imported in _imported(path):
            words = imported.split(".")
            if words[:3] == ["onnxslim", "passes", name] and words[3] in folders:
                below[path.parent.name].add(words[3])
    for folder, others in below.items():
        others.discard(folder)
    tuple(TopologicalSorter(below).static_order())  # raises CycleError


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import onnxslim, onnxslim.ir, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LATE & set(run.stdout.split())
