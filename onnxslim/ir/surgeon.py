"""onnx-graphsurgeon itself, for those who know it by another name."""

from __future__ import annotations

import onnx_graphsurgeon

surgeon = onnx_graphsurgeon
