"""The result tables of a report as a picture, for the README.

python -m tests.bench.picture REPORT.json OUT.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from onnxslim.report.record import Report
from onnxslim.report.table import result_tables

WIDTH = 112
# A picture must not load fonts from elsewhere.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Draw it."""
    source, target = map(Path, sys.argv[1:3])
    report = Report.from_json(source.read_text(encoding="utf-8"))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(result_tables(report))
    command = f"python -m onnxslim in.onnx out.onnx --passes {report.pipeline.rpartition(',')[0]}"
    console.save_svg(str(target), title=command, code_format=FORMAT, unique_id="result")


if __name__ == "__main__":
    main()
