"""Rules that remove nodes: outputs stay equal bit for bit."""

from __future__ import annotations

from onnxslim.rewrite import Rule

RULES: tuple[Rule, ...] = ()
