"""What the weights of a model take in the file once choices have been carried out."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search
from onnxslim.passes.quant.embeddings import quantize_embeddings
from onnxslim.passes.quant.rewrite.apply import quantize
from onnxslim.passes.quant.rewrite.packed import pack


def stored_bytes(search: Search, choices: Choices) -> int:
    """What all weights take in the file with these choices."""
    twin = ir.snapshot(search.model)
    editor = Editor(twin)
    quantize(editor, search.target, search.facts, choices)
    if choices.coarse:
        pack(editor)
    if search.target.local:
        quantize_embeddings(editor, choices.excluded)
    return ir.weight_bytes(twin)
