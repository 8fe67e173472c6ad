"""What importing the IR costs: sympy, which onnx-ir asks for, comes when it is used."""

from __future__ import annotations

import subprocess
import sys

BEFORE = """
import sys
import onnxslim.driver
assert "onnx_ir" in sys.modules
heavy = {"sympy", "mpmath", "onnx.reference", "scipy", "onnxruntime", "rich"}
print(sorted(heavy & set(sys.modules)))
"""

USED = """
import sys
from onnxslim import ir
size = ir.SymbolicDim("N")
print((size * 2 + 1).evaluate({"N": 3}), ir.SymbolicDim("max(N, 5)").evaluate({"N": 3}))
import sympy
print(sys.modules["sympy"] is sympy, type(sympy).__name__, sympy.core.add.Add.__name__)
print(ir.SymbolicDim(sympy.Symbol("k") * 2).value)
try:
    ir.SymbolicDim(1.5)
except TypeError as error:
    print(error)
"""

OURS_LAST = """
import sympy, onnx_ir
from onnxslim import ir
print(ir.SymbolicDim is onnx_ir.SymbolicDim, (ir.SymbolicDim("N") - 1).value)
"""


def printed(program: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_driver_imports_nothing_heavy() -> None:
    assert printed(BEFORE) == ["[]"]


def test_symbolic_sizes_work_as_before() -> None:
    lines = printed(USED)
    assert lines[:3] == ["7 5", "True module Add", "2*k"]
    assert "sympy.Expr" in lines[3]


def test_whoever_imported_sympy_before_keeps_it() -> None:
    assert printed(OURS_LAST) == ["True N - 1"]
