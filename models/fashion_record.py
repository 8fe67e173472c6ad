"""The record of the nets and their data, ``fashion.toml``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["record"]

HEADER = """\
# Written by models/make_fashion.py: the nets trained on Fashion-MNIST.
# An input is (pixel / 255 - 0.2860) / 0.3530; top1 is the score on the 10,000 test images.
"""


def toml_line(key: str, value: str | int | float | bool) -> str:
    """One ``key = value`` line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {text}"


def record(path: Path, table: str, entry: dict[str, Any]) -> None:
    """Set one table of the TOML file ``path`` and keep the others."""
    tables = tomllib.loads(path.read_text()) if path.exists() else {}
    tables[table] = entry
    parts = [HEADER]
    for name in sorted(tables):
        lines = [toml_line(key, value) for key, value in tables[name].items()]
        parts.append("\n".join([f"[{name}]", *lines, ""]))
    path.write_text("\n".join(parts))
