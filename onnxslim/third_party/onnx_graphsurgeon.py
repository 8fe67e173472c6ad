"""`onnxslim.third_party.onnx_graphsurgeon` is the installed onnx-graphsurgeon: no copy of it."""

from __future__ import annotations

import sys

from onnxslim.ir.surgeon import surgeon

sys.modules[__name__] = surgeon
