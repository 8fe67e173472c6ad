"""Language models: what a run for a single token is, which is how they spend most of their time."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.runtime.roles import Input, dim_kind, read_inputs
from onnxslim.runtime.samples import Feed


def is_language_model(model: ir.Model) -> bool:
    """Whether an output has a number for each row of the table that the model's token ids index."""
    rows = {i.bound for i in read_inputs(model) if i.role == "ids" and i.bound is not None}
    shapes = [value.shape for value in model.graph.outputs if value.shape]
    return any(len(shape) > 1 and shape[-1] in rows for shape in shapes)


def one_token(model: ir.Model, feed: Feed) -> Feed | None:
    """The feed cut to the first token, for a language model of any length; else None.

    Every input that counts tokens by the symbol that the ids have is cut. A model whose inputs
    depend on each other in other ways cannot run what comes out.
    """
    inputs = read_inputs(model)
    symbols = {name for i in inputs if i.role == "ids" for name in _lengths(i).values()}
    if not symbols or not is_language_model(model):
        return None
    cut = dict(feed)
    for given in inputs:
        for axis, name in _lengths(given).items():
            array = feed.get(given.info.name)
            if name in symbols and array is not None:
                first = (slice(None),) * axis + (slice(0, 1),)
                cut[given.info.name] = cut[given.info.name][first]
    return cut


def _lengths(given: Input) -> dict[int, str]:
    """The axes that count tokens, and the symbols that they have."""
    shape = given.info.shape or ()
    return {
        axis: dim
        for axis, dim in enumerate(shape)
        if isinstance(dim, str) and dim_kind(given.info, axis) == "sequence"
    }
