"""Which form a report has in a file."""

from __future__ import annotations

from pathlib import Path

from onnxslim.report.record import Report


def text_for(path: Path, report: Report) -> str:
    """One HTML page where the file's name ends like one, else JSON."""
    if path.suffix.lower() not in (".html", ".htm"):
        return report.to_json()
    from onnxslim.report.page import page

    return page(report)
