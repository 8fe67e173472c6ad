"""Edits that are refused, in the main graph, in a subgraph and in a function, change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import EditError
from tests.places import PLACES, Place, negated_twice


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


def _refused(place: Place, message: str) -> pytest.RaisesExc[EditError]:
    return pytest.raises(EditError, match=message)


@pytest.fixture
def untouched(place: Place) -> Iterator[None]:
    """Checks at the end of a test that the model is what it was."""
    before = ir.to_text(place.model)
    yield
    assert ir.to_text(place.model) == before
    place.check()


@pytest.mark.usefixtures("untouched")
class TestRefusals:
    def test_a_chain_that_does_not_compute_the_value(self, place: Place) -> None:
        value = place.node("Relu").outputs[0]
        nodes, _ = negated_twice(place, value)
        with _refused(place, "not computed by the nodes"):
            place.editor.insert_on_edge(value, nodes, place.node("Neg").outputs[0])

    def test_a_use_that_reads_something_else(self, place: Place) -> None:
        value = place.node("Relu").outputs[0]
        nodes, new = negated_twice(place, value)
        with _refused(place, "does not read 'twice"):
            place.editor.insert_on_edge(value, nodes, new, [(place.node("Neg"), 0)])

    def test_an_edge_that_nobody_reads(self, place: Place) -> None:
        value = place.node("Add", 1).outputs[0]
        nodes, new = negated_twice(place, value)
        with _refused(place, "no node reads"):
            place.editor.insert_on_edge(value, nodes, new)

    def test_a_value_of_an_inner_scope(self, place: Place) -> None:
        inner = next(node for node in ir.nodes(place.model) if node.op_type == "Mul")
        reader = place.editor.node("Abs", [inner.outputs[0]], outputs=["r"])
        with _refused(place, "cannot be seen by"):
            place.editor.insert_after(place.node("Neg"), [reader])
        with _refused(place, "cannot be seen by"):
            place.editor.rewire([(place.node("Neg"), 0)], inner.outputs[0])

    def test_a_value_of_no_graph(self, place: Place) -> None:
        lost = place.editor.node("Abs", [place.node("Relu").outputs[0]], outputs=["lost"])
        reader = place.editor.node("Abs", [lost.outputs[0]], outputs=["r"])
        with _refused(place, "belongs to no graph"):
            place.editor.insert_after(place.node("Neg"), [reader])

    def test_a_node_that_is_in_a_graph_already(self, place: Place) -> None:
        with _refused(place, "is in a graph already"):
            place.editor.insert_before(place.node("Relu"), [place.node("Neg")])

    def test_an_anchor_outside_of_the_model(self, place: Place) -> None:
        stray = place.editor.node("Abs", [place.node("Relu").outputs[0]], outputs=["s"])
        with _refused(place, "is not part of the model"):
            place.editor.insert_before(stray, [])

    def test_a_wrong_number_of_outputs(self, place: Place) -> None:
        with _refused(place, "has 1 outputs, not 0"):
            place.editor.replace_node(place.node("Neg"), [], [])

    def test_none_for_an_output_that_is_read(self, place: Place) -> None:
        with _refused(place, "None cannot stand for it"):
            place.editor.replace_node(place.node("Neg"), [], [None])

    def test_an_old_value_for_a_graph_output(self, place: Place) -> None:
        with _refused(place, "only a new value can take its name"):
            place.editor.replace_node(place.node("Add"), [], [place.node("Relu").outputs[0]])

    def test_bypassing_to_a_value_with_a_name_to_keep(self, place: Place) -> None:
        add = place.node("Add", 1)
        inner = next(node for node in ir.nodes(place.model) if node.op_type == "Mul")
        refusals = {
            "is one too, under its own name": place.node("Add").outputs[0],
            "is an input or constant": place.node("Relu").inputs[0],
            "is computed in another graph": inner.outputs[0],
            "is made by the node that goes away": add.outputs[0],
        }
        for message, value in refusals.items():
            assert value is not None
            with _refused(place, message):
                place.editor.bypass(add, value)

    def test_a_node_replaced_by_what_reads_it(self, place: Place) -> None:
        old = place.node("Neg")
        reader = place.editor.node("Abs", [old.outputs[0]], outputs=["r"])
        with _refused(place, "which goes away"):
            place.editor.replace_node(old, [reader], reader.outputs)

    def test_unsharing_what_is_computed(self, place: Place) -> None:
        with _refused(place, "is not constant"):
            place.editor.unshare(place.node("Neg"), 0)
        with _refused(place, "has no input 7"):
            place.editor.unshare(place.node("Neg"), 7)

    def test_replacing_what_is_not_constant(self, place: Place) -> None:
        with _refused(place, "is not a constant"):
            place.editor.replace_initializer(place.node("Neg").outputs[0], np.ones(2))

    def test_rewiring_an_input_that_is_not_there(self, place: Place) -> None:
        with _refused(place, "has no input 3"):
            place.editor.rewire([(place.node("Neg"), 3)], place.node("Relu").outputs[0])

    def test_rewiring_a_node_to_itself(self, place: Place) -> None:
        with _refused(place, "would read its own output"):
            place.editor.rewire([(place.node("Neg"), 0)], place.node("Neg").outputs[0])
